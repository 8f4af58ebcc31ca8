"""Sampling on the device: against the CPU, in bfloat16, compiled, edited and as a batch."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ldm.pipeline import FacePipeline
from ldm.pipeline.pretrained import compile_step, label_set_of
from tests import small

pytestmark = pytest.mark.gpu

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"
FLOAT32, BFLOAT16 = 2e-3, 0.05  # mean absolute difference of images in [-1, 1]


def sampled(pipe: FacePipeline, count: int = 2, **options: object) -> Tensor:
    batch = small.batch(count, size=pipe.size[0])
    style = pipe.read_style(batch["image"], batch["labels"])
    return pipe(batch["labels"], style, **{"steps": 6, "seed": list(range(count)), **options}).cpu()


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().mean().item()


@pytest.fixture(scope="module")
def expected() -> Tensor:
    """Images of the CPU in float32."""
    return sampled(FacePipeline.from_pretrained(DEMO, device="cpu", precision="float32"))


def test_images_are_those_of_the_cpu(expected: Tensor, device: torch.device) -> None:
    for precision, bound in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
        pipe = FacePipeline.from_pretrained(DEMO, device=device, precision=precision)
        assert difference(sampled(pipe), expected) < bound, precision


def test_guided_images_are_those_of_the_cpu(device: torch.device) -> None:
    images = [
        sampled(FacePipeline.from_pretrained(DEMO, device=place, precision="float32"), guidance=1.5)
        for place in ("cpu", device)
    ]
    assert difference(*images) < FLOAT32


def test_an_image_is_the_same_in_any_batch(device: torch.device) -> None:
    pipe = FacePipeline.from_pretrained(DEMO, device=device, precision="float32")
    assert difference(sampled(pipe, 3), sampled(pipe, 3, batch_size=1)) < FLOAT32


def test_a_locked_edit_keeps_every_other_pixel(device: torch.device) -> None:
    pipe = FacePipeline.from_pretrained(DEMO, device=device)
    batch = small.batch(1, size=pipe.size[0])
    image, labels = batch["image"][0], batch["labels"][0]
    hair = pipe.label_set.indices(["hair"])[0]
    found = pipe.edit(
        image, labels, pipe.null_style(labels), regions=["hair"], border=0, steps=4, solver="dpmpp_2m"
    ).cpu()
    kept = (labels != hair).expand_as(image)
    assert torch.equal(found[kept], image[kept])
    assert not torch.equal(found, image)


def test_inversion_finds_the_image_again(device: torch.device) -> None:
    pipe = FacePipeline.from_pretrained(DEMO, device=device, precision="float32")
    batch = small.batch(1, size=pipe.size[0])
    image, labels = batch["image"][0], batch["labels"][0]
    style = pipe.read_style(image, labels)
    how = {"regions": ["skin"], "lock": False, "invert": True, "steps": 50}
    found = pipe.edit(image, labels, style, **how).cpu()
    assert difference(found, pipe.autoencode(image).cpu()) < 0.1


def test_compiled_steps_make_the_same_images(device: torch.device) -> None:
    model = small.sensitive(small.diffusion()).to(device)
    pipe = FacePipeline(model, label_set_of({}, model), (16, 16))
    eager = sampled(pipe)
    compile_step(model)
    first, again = sampled(pipe), sampled(pipe)
    assert difference(first, eager) < FLOAT32 * eager.abs().mean().item() * 5
    assert torch.equal(first, again)
