"""The face parser in the repository, on a real photo."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.cli import main
from ldm.data.images import load_image
from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing import FaceParser
from ldm.parsing.photo_faces import align
from ldm.pipeline import PhotoEditor

PHOTO = Path(__file__).resolve().parents[2] / "assets" / "photos" / "astronaut.jpg"


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    with Image.open(PHOTO) as photo:
        _, labels = align(photo, FaceParser.from_pretrained(device="cpu"), (256, 256))
    return labels.numpy()


def center(labels: np.ndarray, region: str) -> tuple[float, float]:
    """Return the mean (row, column) of a region's pixels."""
    rows, columns = np.nonzero(labels == CELEBAMASK_HQ.regions.index(region))
    return rows.mean(), columns.mean()


def test_regions_are_large_and_lie_where_they_should(labels: np.ndarray) -> None:
    share = {name: (labels == i).mean() for i, name in enumerate(CELEBAMASK_HQ.regions)}
    assert share["skin"] > 0.1 and share["hair"] > 0.05
    assert center(labels, "hair")[0] < center(labels, "nose")[0] < center(labels, "u_lip")[0]
    assert center(labels, "u_lip")[0] < center(labels, "l_lip")[0] < center(labels, "neck")[0]


def test_left_is_the_persons_left(labels: np.ndarray) -> None:
    assert center(labels, "l_eye")[1] > center(labels, "r_eye")[1]
    assert center(labels, "l_brow")[1] > center(labels, "r_brow")[1]


def test_a_real_photo_is_edited_with_what_lies_in_the_repository(tmp_path: Path) -> None:
    out = tmp_path / "edited.png"
    assert main(["photo", str(PHOTO), "--color", "hair=auburn", "--device", "cpu", "-o", str(out)]) == 0
    before, after = load_image(PHOTO), load_image(out)
    changed = (before != after).any(0).numpy()
    assert 0.02 < changed.mean() < 0.12  # the hair, and nothing else
    with Image.open(out) as image:
        assert json.loads(image.info["sca-dm"])["regions"] == ["hair"]


def test_a_dark_collar_is_no_hair() -> None:
    """The parser labels the rim of the suit as hair; it lies apart from the head."""
    photo = PhotoEditor.from_pretrained(device="cpu").open(PHOTO)
    result = photo.edit(color="blue", regions=["hair"])
    assert (result.matte[:130] > 0.9).sum() > 7000  # the head of hair
    assert not result.matte[145:].any()
