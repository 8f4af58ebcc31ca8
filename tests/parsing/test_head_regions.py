"""Regions of one head: what lies apart from the face, or nearer to another one, does not count."""

import pytest
import torch
import torch.nn.functional as F

from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing.alignment import Crop
from ldm.parsing.head_regions import attached_regions, flooded, nearest_face

SIZE = 80  # components are joined by steps of at most 2 pixels


def label_map(**boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """Return a label map with boxes (top, bottom, left, right) by region."""
    labels = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    for name, (top, bottom, left, right) in boxes.items():
        labels[top:bottom, left:right] = CELEBAMASK_HQ.index(name.rstrip("_"))
    return labels


def kept(labels: torch.Tensor, region: str) -> int:
    return int(attached_regions(labels, CELEBAMASK_HQ, [region]).sum())


@pytest.mark.parametrize(("gap", "hair"), [(0, 200), (1, 200), (5, 100)])
def test_only_hair_near_the_head_counts(gap: int, hair: int) -> None:
    labels = label_map(skin=(30, 50, 30, 50), hair=(25, 30, 30, 50), hair_=(50 + gap, 55 + gap, 30, 50))
    assert kept(labels, "hair") == hair


def test_hair_below_an_ear_counts_but_a_collar_beside_the_neck_does_not() -> None:
    face = {"skin": (30, 50, 30, 50), "l_ear": (35, 45, 50, 56)}
    assert kept(label_map(**face, hair=(45, 60, 54, 57)), "hair") == 45
    assert kept(label_map(**face, neck=(50, 60, 35, 45), hair=(56, 64, 45, 60)), "hair") == 0


def test_lips_of_a_pattern_on_the_clothes_are_dropped_and_clothes_are_not() -> None:
    labels = label_map(
        skin=(30, 50, 30, 50), u_lip=(44, 46, 35, 45), u_lip_=(70, 72, 60, 70), cloth=(72, 80, 0, 80)
    )
    assert kept(labels, "u_lip") == 20
    assert kept(labels, "cloth") == 8 * 80


def test_a_label_map_without_a_face_keeps_all() -> None:
    assert kept(label_map(hair=(0, 10, 0, 10)), "hair") == 100


def test_flooding_follows_a_path_to_its_end() -> None:
    path = torch.zeros(9, 9, dtype=torch.bool)
    path[0, :], path[:, 8], path[8, :] = True, True, True
    seed = torch.zeros_like(path)
    seed[0, 0] = True
    assert torch.equal(flooded(seed, path, 1), path)
    path[4, 8] = False
    assert int(flooded(seed, path, 1).sum()) == 9 + 3
    assert int(flooded(seed, path, 2).sum()) == 9 + 3 + 4 + 8


@pytest.mark.parametrize("gap", [1, 3])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_flooding_reaches_what_single_steps_reach(gap: int, share: float) -> None:
    random = torch.Generator().manual_seed(0)
    area = torch.rand(37, 23, generator=random) < share
    seed = torch.rand(37, 23, generator=random) < 0.03
    expected = before = seed & area
    while True:
        steps = F.max_pool2d(expected[None, None].float(), 2 * gap + 1, 1, gap)[0, 0] > 0
        before, expected = expected, steps & area
        if torch.equal(before, expected):
            break
    assert torch.equal(flooded(seed, area, gap), expected)


def test_pixels_are_shared_with_a_neighbor_by_distance_and_size() -> None:
    crop = Crop(100 + 100j, 50 + 0j)
    assert nearest_face(crop, [], (10, 10)).all()
    equal = nearest_face(crop, [Crop(150 + 100j, 50 + 0j)], (100, 100))
    assert equal[:, :75].all() and not equal[:, 75:].any()  # x = 125
    small = nearest_face(crop, [Crop(150 + 100j, 10 + 0j)], (100, 100))
    assert small[0, 80] and not small[50, 97]
    turned = nearest_face(Crop(100 + 100j, 50j), [Crop(100 + 150j, 50 + 0j)], (100, 100))
    assert torch.equal(turned, equal)  # below in the photo is on the right of a crop turned by 90 degrees
