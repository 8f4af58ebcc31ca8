"""Face parsers from elsewhere whose class names are wrong."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ldm.checkpoints.errors import CheckpointError
from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing import FaceParser, face_parser
from ldm.parsing.class_check import check_classes, misnamed, reference_face, swapped_sides

ALL = [("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear")]


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return reference_face()[1]


def renamed(labels: Tensor, *pairs: tuple[str, str]) -> Tensor:
    """Exchange the labels of each pair."""
    out = labels.clone()
    for pair in pairs:
        a, b = CELEBAMASK_HQ.indices(pair)
        out[labels == a], out[labels == b] = b, a
    return out


def test_the_reference_passes(truth: Tensor) -> None:
    assert check_classes(truth, truth, "parser") == []


def test_the_parser_in_the_repository_passes(truth: Tensor) -> None:
    image, _ = reference_face()
    labels = FaceParser.from_pretrained(device="cpu").parse(image)
    assert check_classes(labels, truth, "parser") == []


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


@pytest.mark.parametrize("region", ["background", "skin", "hair"])
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
