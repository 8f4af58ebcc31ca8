"""Label sets (names, palettes, mirrors) and one-hot masks."""

import numpy as np
import pytest
import torch

from ldm.data.labels import (
    ADE20K,
    CELEBAMASK_HQ,
    CITYSCAPES,
    CITYSCAPES_TRAIN,
    DEEPFASHION,
    LABEL_SETS,
    UNLABELED,
    LabelSet,
    one_hot,
)


@pytest.mark.parametrize("label_set", LABEL_SETS.values(), ids=LABEL_SETS)
def test_names_and_colors_are_distinct(label_set: LabelSet) -> None:
    assert len(set(label_set.regions)) == len(label_set)
    assert len(set(label_set.palette)) == len(label_set)
    assert (0, 0, 0) not in label_set.palette  # black means unlabeled
    assert all(0 <= value <= 255 for color in label_set.palette for value in color)


def test_region_counts() -> None:
    assert [len(s) for s in (CELEBAMASK_HQ, CITYSCAPES, CITYSCAPES_TRAIN, ADE20K, DEEPFASHION)] == [
        19,
        35,
        19,
        151,
        24,
    ]


def test_order_of_celebamask_hq() -> None:
    names = (
        "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat "
        "ear_r neck_l neck cloth"
    )
    assert CELEBAMASK_HQ.regions == tuple(names.split())
    assert CELEBAMASK_HQ.indices(["hair", "u_lip"]) == [13, 11]


def test_known_labels_of_other_datasets() -> None:
    assert (CITYSCAPES.index("road"), CITYSCAPES.index("car"), CITYSCAPES.index("bicycle")) == (7, 26, 33)
    assert (CITYSCAPES_TRAIN.index("road"), CITYSCAPES_TRAIN.index("bicycle")) == (0, 18)
    # ADE20K's files number wall 1, sink 48, flag 150; regions count from 0 and "other" comes last.
    assert [ADE20K.index(n) + 1 for n in ("wall", "sink", "bus", "flag")] == [1, 48, 81, 150]
    assert ADE20K.index("other") == 150
    assert (DEEPFASHION.index("hair"), DEEPFASHION.index("tie")) == (13, 23)


def test_mirror_swaps_left_and_right() -> None:
    swapped = {CELEBAMASK_HQ.regions[i] for i, m in enumerate(CELEBAMASK_HQ.mirror) if m != i}
    assert swapped == {"l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"}
    assert CELEBAMASK_HQ.regions[CELEBAMASK_HQ.mirror[CELEBAMASK_HQ.index("l_eye")]] == "r_eye"


def test_flip() -> None:
    labels = torch.tensor([[4, 1, 13], [255, 9, 0]], dtype=torch.uint8)
    flipped = CELEBAMASK_HQ.flip(labels)
    assert flipped.dtype == torch.uint8
    assert flipped.tolist() == [[13, 1, 5], [0, 8, 255]]
    assert torch.equal(CELEBAMASK_HQ.flip(flipped), labels)


def test_unknown_regions_list_the_closest_names() -> None:
    with pytest.raises(
        ValueError, match=r"CelebAMask-HQ has no region 'left_eye'; did you mean one of: l_eye, "
    ):
        CELEBAMASK_HQ.index("left_eye")
    with pytest.raises(ValueError, match=r"one of: chair, .*and 111 more"):
        ADE20K.index("hairs")


def test_string_instead_of_a_list_of_names() -> None:
    with pytest.raises(ValueError, match=r"write \['hair'\]"):
        CELEBAMASK_HQ.indices("hair")


def test_colorize() -> None:
    labels = np.array([[0, 13], [18, UNLABELED]])
    expected = [[CELEBAMASK_HQ.palette[0], CELEBAMASK_HQ.palette[13]], [CELEBAMASK_HQ.palette[18], (0, 0, 0)]]
    painted = CELEBAMASK_HQ.colorize(labels)
    assert painted.dtype == np.uint8
    assert np.array_equal(painted, expected)
    assert np.array_equal(CELEBAMASK_HQ.colorize(torch.from_numpy(labels)), painted)
    with pytest.raises(ValueError, match=r"label 23; CelebAMask-HQ has labels in \[0, 18\]"):
        CELEBAMASK_HQ.colorize(np.full((2, 2), 23))
    with pytest.raises(ValueError, match=r"expected integer labels \(H, W\)"):
        CELEBAMASK_HQ.colorize(np.zeros((1, 2, 2), np.uint8))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_one_hot_equals_torch_and_unlabeled_is_zero(dtype: torch.dtype) -> None:
    labels = torch.randint(0, 19, (2, 5, 7), generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.one_hot(labels, 19).permute(0, 3, 1, 2).float()
    mask = one_hot(labels.to(dtype), 19)
    assert mask.dtype == torch.float32
    assert torch.equal(mask, expected)
    labels[0, 0, 0] = UNLABELED
    assert one_hot(labels.to(dtype), 19)[0, :, 0, 0].sum() == 0
    assert one_hot(labels.to(dtype), 19).sum() == labels.numel() - 1


@pytest.mark.parametrize(
    ("labels", "regions", "message"),
    [
        (torch.full((1, 2, 2), 19), 19, r"must be in \[0, 18\].*got \[19\]"),
        (torch.full((1, 2, 2), -1), 19, r"got \[-1\]"),
        (torch.zeros(2, 2, dtype=torch.long), 19, r"must have shape \(B, H, W\), got \(2, 2\)"),
        (torch.zeros(1, 2, 2), 19, r"labels must be integers.*got torch.float32"),
        (torch.zeros(1, 2, 2, dtype=torch.long), 256, r"num_regions must be in .*got 256"),
    ],
)
def test_one_hot_errors(labels: torch.Tensor, regions: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_hot(labels, regions)


def test_mirror_must_be_its_own_inverse() -> None:
    with pytest.raises(ValueError, match="mirror must be its own inverse"):
        LabelSet("three", ("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), (1, 2, 0))


def test_repair_sides() -> None:
    left, right, brow = (CELEBAMASK_HQ.index(name) for name in ("l_eye", "r_eye", "l_brow"))
    labels = torch.ones(6, 8, dtype=torch.uint8)
    labels[3, 5:7], labels[3, 1:3], labels[1, 5:7] = left, right, brow
    assert torch.equal(CELEBAMASK_HQ.repair_sides(labels), labels)
    swapped_sides = CELEBAMASK_HQ.flip(labels).flip(-1)  # original positions, labels of the mirror image
    assert swapped_sides[3, 5] == right and swapped_sides[1, 5] == CELEBAMASK_HQ.index("r_brow")
    assert torch.equal(CELEBAMASK_HQ.repair_sides(swapped_sides), labels)
    one_eye = torch.where(labels == right, 1, labels)
    assert torch.equal(CELEBAMASK_HQ.repair_sides(one_eye), one_eye)  # the side is unknown
