"""The weights in checkpoints/demo: they fit the code as it is, and do what their card says, on faces of no training."""

from pathlib import Path

import pytest
import torch

from ldm.data.images import as_unit
from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.synthetic.dataset import render
from ldm.data.synthetic.sample_shape import draw_shape
from ldm.data.synthetic.sample_style import FaceStyle, draw_style
from ldm.pipeline import FacePipeline

ROOT = Path(__file__).parents[1]
SERIES = 2000  # neither the trainings' nor the evaluation's
COUNT = 8


@pytest.fixture(scope="module")
def pipe() -> FacePipeline:
    return FacePipeline.from_pretrained(ROOT / "checkpoints" / "demo", device="cpu")


def drawn(index: int, style: FaceStyle) -> tuple[torch.Tensor, torch.Tensor]:
    image, labels = render(draw_shape(SERIES, index), style, 64)
    return as_unit(torch.from_numpy(image).permute(2, 0, 1)), torch.from_numpy(labels)


def psnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    return (-10 * ((found - expected) / 2).square().mean((1, 2, 3)).log10()).mean().item()


def test_faces_come_back_and_hair_follows_its_style_alone(pipe: FacePipeline) -> None:
    styles = [draw_style(SERIES, i) for i in range(COUNT)]
    others = styles[1:] + styles[:1]
    image, labels = map(torch.stack, zip(*(drawn(i, style) for i, style in enumerate(styles)), strict=True))
    truth = torch.stack([drawn(i, styles[i].swap(others[i], ["hair"]))[0] for i in range(COUNT)])
    codes = pipe.read_style(image, labels)
    same = pipe(labels, codes, seed=0)
    swapped = pipe(labels, [codes[i].swap(codes[(i + 1) % COUNT], ["hair"]) for i in range(COUNT)], seed=0)
    assert psnr(pipe.autoencode(image), image) > 24
    assert psnr(same, image) > 24.5 and psnr(swapped, truth) > 23.5

    hair = (labels == CELEBAMASK_HQ.index("hair"))[:, None].expand_as(image)
    error, unswapped = ((x - truth)[hair].abs().mean() for x in (swapped, image))
    assert error < 0.4 * unswapped
    change = (swapped - same).abs()
    assert change[~hair].mean() < 0.06 * change[hair].mean()


def test_they_are_small_enough_for_the_repository() -> None:
    assert sum(file.stat().st_size for file in (ROOT / "checkpoints/demo").iterdir()) < 30e6
