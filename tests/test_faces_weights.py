"""The weights in checkpoints/faces do what their card says, on two photos that they were not trained on."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ldm.data.images import load_image
from ldm.data.label_maps import load_labels
from ldm.metrics.color import ciede2000, mean_color
from ldm.metrics.pixels import psnr
from ldm.parsing import FaceParser
from ldm.pipeline import FacePipeline

ROOT = Path(__file__).parents[1]
FACES = ROOT / "assets" / "photos" / "aligned"


@pytest.fixture(scope="module")
def pipe() -> FacePipeline:
    return FacePipeline.from_pretrained(
        ROOT / "checkpoints/faces/diffusion", device="cpu", precision="float32"
    )


@pytest.fixture(scope="module")
def faces(pipe: FacePipeline) -> tuple[Tensor, Tensor]:
    """Return images (2, 3, 256, 256) and label maps (2, 256, 256)."""
    names = ("astronaut", "grace_hopper")
    images = [load_image(FACES / f"images/{name}.jpg", pipe.size) for name in names]
    labels = [load_labels(FACES / f"labels/{name}.png", pipe.label_set, pipe.size) for name in names]
    return torch.stack(images), torch.stack(labels)


def test_reconstructions(pipe: FacePipeline, faces: tuple[Tensor, Tensor]) -> None:
    images, labels = faces
    assert min(psnr(pipe.autoencode(images), images)) > 25  # 33.1 and 26.0 dB
    assert min(psnr(pipe(labels, pipe.read_style(images, labels), seed=0), images)) > 15  # 17.6 on average


def test_a_locked_edit_gives_hair_its_color_and_keeps_the_rest(
    pipe: FacePipeline, faces: tuple[Tensor, Tensor]
) -> None:
    image, labels = faces[0][0], faces[1][0]
    hair = labels == pipe.label_set.index("hair")
    dark = torch.where(hair, 0.3 * (image + 1) - 1, image)  # the truth of the edit
    style = pipe.read_style(image, labels).swap(pipe.read_style(dark, labels), ["hair"])
    edited = pipe.edit(image, labels, style, regions=["hair"], seed=0, border=0)
    assert torch.equal(edited[:, ~hair], image[:, ~hair])
    expected = mean_color(dark, hair)
    before, after = (ciede2000(mean_color(each, hair), expected) for each in (image, edited))
    assert after < before / 3


def test_the_parser_finds_the_regions_of_the_label_maps(faces: tuple[Tensor, Tensor]) -> None:
    images, labels = faces
    assert (FaceParser.from_pretrained(device="cpu").parse(images) == labels).float().mean() > 0.9


@pytest.mark.parametrize("name", ["demo", "faces/diffusion"])
def test_weights_load_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        FacePipeline.from_pretrained(ROOT / "checkpoints" / name, device="cpu", precision="float32")


def test_all_weights_together_are_small_enough_for_a_clone() -> None:
    assert sum(file.stat().st_size for file in (ROOT / "checkpoints/faces").rglob("*.safetensors")) < 45e6
