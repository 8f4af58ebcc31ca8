import math

import pytest
import torch

from ldm.metrics.pixels import absolute_error, decibels, psnr, squared_error, ssim


def noise(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_error_of_black_against_white_is_one() -> None:
    black, white = -torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert torch.equal(absolute_error(white, black), torch.ones(1, 4, 4))
    assert torch.equal(squared_error(white, torch.zeros(1, 3, 4, 4)), torch.full((1, 4, 4), 0.25))


def test_psnr_of_a_known_difference() -> None:
    image = noise() / 2
    assert psnr(image + 0.2, image) == [pytest.approx(20, abs=1e-4)] * 2  # a tenth of the range
    assert psnr(image, image) == [math.inf, math.inf]
    assert decibels(0.01) == pytest.approx(20) and math.isnan(decibels(math.nan))


def test_ssim_of_two_grays_is_the_closed_form() -> None:
    a, b = 0.2, -0.6
    stabiliser = (0.01 * 2) ** 2
    expected = (2 * a * b + stabiliser) / (a * a + b * b + stabiliser)
    values, maps = ssim(torch.full((1, 3, 32, 32), a), torch.full((1, 3, 32, 32), b))
    assert float(values) == pytest.approx(expected, abs=1e-4)
    assert maps.shape == (1, 32, 32)
    assert maps.flatten().tolist() == pytest.approx([expected] * 1024, abs=1e-4)


def test_ssim_map_is_low_where_images_differ() -> None:
    image, other = noise(), noise()
    other[:, :, :, 16:] = noise(1)[:, :, :, 16:]
    values, maps = ssim(image, other)
    assert maps[:, :, :10].min() > 0.999 and maps[:, :, 22:].mean() < 0.2
    assert ((values > 0.3) & (values < 0.7)).all()
