"""Face parsers from elsewhere whose class names are wrong."""

from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ldm.checkpoints.errors import CheckpointError
from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing import FaceParser, face_parser
from ldm.parsing.class_check import check_classes, misnamed, reference_face, swapped_sides

REGIONS = CELEBAMASK_HQ.regions
EYES, BROWS, EARS = ALL = [("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear")]
ABSENT = ["eye_g", "hat", "ear_r", "neck_l"]  # from the reference face
PRESENT = [region for region in REGIONS if region not in ABSENT]
SMALL = [*EYES, *BROWS, *EARS, "u_lip", "l_lip"]


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return reference_face()[1]


@pytest.fixture(scope="module")
def prediction() -> Tensor:
    """Return the label map of the reference face by the parser in the repository."""
    return FaceParser.from_pretrained(device="cpu").parse(reference_face()[0])


def renamed(labels: Tensor, *pairs: tuple[str, str]) -> Tensor:
    """Exchange the labels of each pair."""
    out = labels.clone()
    for pair in pairs:
        a, b = CELEBAMASK_HQ.indices(pair)
        out[labels == a], out[labels == b] = b, a
    return out


def test_the_reference_passes(truth: Tensor) -> None:
    assert check_classes(truth, truth, "parser") == []


def test_the_parser_in_the_repository_passes(prediction: Tensor, truth: Tensor) -> None:
    assert check_classes(prediction, truth, "parser") == []
    assert {REGIONS[i] for i in prediction.unique()} == set(PRESENT)


@pytest.mark.parametrize("pairs", [ALL, ALL[:1], ALL[1:]], ids=str)
def test_swapped_pairs_are_found(truth: Tensor, pairs: list[tuple[str, str]]) -> None:
    assert swapped_sides(renamed(truth, *pairs)) == pairs


def test_ears_that_were_not_found_follow_eyes_and_brows(truth: Tensor) -> None:
    labels = renamed(truth, *ALL)
    for ear in CELEBAMASK_HQ.indices(("l_ear", "r_ear")):
        labels[labels == ear] = 0
    assert swapped_sides(labels) == ALL
    assert swapped_sides(renamed(labels, *ALL)) == []


def test_a_class_that_finds_another_region_is_named(truth: Tensor) -> None:
    wrong = renamed(truth, ("hair", "cloth"))
    assert misnamed(wrong, truth) == {"hair": "cloth", "cloth": "hair"}
    with pytest.raises(CheckpointError, match=r"some/parser.*'hair' segments cloth"):
        check_classes(wrong, truth, "some/parser")


def test_exchanged_classes_are_named_except_left_and_right_which_are_corrected(
    prediction: Tensor, truth: Tensor
) -> None:
    for pair in combinations(PRESENT, 2):
        wrong = renamed(prediction, pair)
        if pair in ALL:
            assert check_classes(wrong, truth, "parser") == [pair]
        else:
            assert misnamed(wrong, truth) == {pair[0]: pair[1], pair[1]: pair[0]}, pair


def test_a_class_that_the_face_lacks_is_named_if_it_finds_a_region_of_another_name(
    prediction: Tensor, truth: Tensor
) -> None:
    for absent, present in product(ABSENT, PRESENT):
        assert misnamed(renamed(prediction, (absent, present)), truth) == {absent: present}
    for pair in combinations(ABSENT, 2):  # the reference face cannot tell these apart
        assert check_classes(renamed(prediction, pair), truth, "parser") == []


@pytest.mark.parametrize(("one", "other"), list(combinations(ALL, 2)))
def test_exchanged_pairs_are_named_on_either_side(
    prediction: Tensor, truth: Tensor, one: tuple[str, str], other: tuple[str, str]
) -> None:
    for order in (other, other[::-1]):
        exchanged = list(zip(one, order, strict=True))
        wrong = renamed(prediction, *exchanged)
        assert misnamed(wrong, truth) == dict(exchanged) | {b: a for a, b in exchanged}
    with pytest.raises(CheckpointError, match=f"'{one[0]}' segments {other[1]}"):
        check_classes(wrong, truth, "parser")


def test_a_class_that_finds_both_sides_of_another_pair_is_named(truth: Tensor) -> None:
    labels = renamed(truth, ("l_eye", "l_brow"))
    labels[labels == CELEBAMASK_HQ.index("r_brow")] = CELEBAMASK_HQ.index("l_eye")
    assert misnamed(labels, truth)["l_eye"] == "l_brow and r_brow"


def without(labels: Tensor, *regions: str) -> Tensor:
    """Label regions as skin."""
    return torch.where(_is(labels, *regions), CELEBAMASK_HQ.index("skin"), labels).to(labels.dtype)


def shrunk(labels: Tensor, pixels: int) -> Tensor:
    """Erode the small regions; the rest becomes skin."""
    for region in SMALL:
        mask = _is(labels, region)
        edge = nn.functional.max_pool2d((~mask)[None].float(), 2 * pixels + 1, 1, pixels)[0] > 0
        labels = torch.where(mask & edge, CELEBAMASK_HQ.index("skin"), labels).to(labels.dtype)
    return labels


def grown(labels: Tensor, pixels: int) -> Tensor:
    """Dilate the small regions."""
    for region in SMALL:
        mask = nn.functional.max_pool2d(_is(labels, region)[None].float(), 2 * pixels + 1, 1, pixels)[0] > 0
        labels = torch.where(mask, CELEBAMASK_HQ.index(region), labels).to(labels.dtype)
    return labels


def coarse(labels: Tensor, stride: int) -> Tensor:
    """Repeat every `stride`-th pixel, as a network with small logits."""
    small = labels[stride // 2 :: stride, stride // 2 :: stride]
    return small.repeat_interleave(stride, 0).repeat_interleave(stride, 1)[:512, :512]


def noisy(labels: Tensor, share: float) -> Tensor:
    """Replace a share of the pixels by random labels."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(0, 19, labels.shape, generator=generator).to(labels.dtype)
    return torch.where(torch.rand(labels.shape, generator=generator) < share, random, labels)


def _is(labels: Tensor, *regions: str) -> Tensor:
    return torch.isin(labels, labels.new_tensor(CELEBAMASK_HQ.indices(regions)))


IMPERFECT: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        f"no {region}": lambda labels, region=region: without(labels, region)
        for region in PRESENT
        if region != "skin"
    },
    "no eyes": lambda labels: without(labels, *EYES),
    "no eyes, brows, ears, lips": lambda labels: without(labels, *SMALL),
    "small regions eroded": lambda labels: shrunk(labels, 3),
    "small regions dilated": lambda labels: grown(labels, 5),
    "logits of 64x64": lambda labels: coarse(labels, 8),
    "logits of 32x32": lambda labels: coarse(labels, 16),
    "6 pixels too low": lambda labels: labels.roll(6, 0),
    "6 pixels too high": lambda labels: labels.roll(-6, 0),
    "6 pixels to the right": lambda labels: labels.roll(6, 1),
    "20 % of the pixels random": lambda labels: noisy(labels, 0.2),
    "one eye for both": lambda labels: torch.where(
        _is(labels, "r_eye"), CELEBAMASK_HQ.index("l_eye"), labels
    ),
    "dark glasses": lambda labels: torch.where(
        _is(grown(labels, 12), *EYES), CELEBAMASK_HQ.index("eye_g"), labels
    ),
}


@pytest.mark.parametrize("kind", IMPERFECT)
def test_an_imperfect_parser_passes(prediction: Tensor, truth: Tensor, kind: str) -> None:
    labels = IMPERFECT[kind](prediction).to(prediction.dtype)
    assert not torch.equal(labels, prediction)
    assert check_classes(labels, truth, "parser") == []


@pytest.mark.parametrize("region", REGIONS)
def test_a_network_that_finds_one_region_alone_is_poor_and_not_misnamed(truth: Tensor, region: str) -> None:
    labels = torch.full_like(truth, CELEBAMASK_HQ.index(region))
    assert check_classes(labels, truth, "parser") == []


class Known(nn.Module):
    """Finds the reference face's label map, with classes in CELEBAMASK_HQ's order, in any image."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(nn.functional.one_hot(labels.long(), 19).permute(2, 0, 1).float())

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits.expand(len(pixels), -1, -1, -1)


def test_a_parser_from_elsewhere_is_corrected_as_it_loads(
    truth: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    names = list(CELEBAMASK_HQ.regions)
    for left, right in ALL:  # as FaRL's and facer's names have them
        i, j = names.index(left), names.index(right)
        names[i], names[j] = right, left
    found = (Known(truth), names, (512, 512), ((0.5,) * 3, (0.5,) * 3))
    monkeypatch.setattr(face_parser, "_from_transformers", lambda path, device: found)
    with pytest.warns(UserWarning, match="l_eye and r_eye, l_brow and r_brow, l_ear and r_ear swapped"):
        parser = FaceParser.from_pretrained(tmp_path, device="cpu")
    assert torch.equal(parser.parse(reference_face()[0]), truth)
