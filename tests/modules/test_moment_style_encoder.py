"""The style encoder of small models."""

import pytest
import torch

from ldm.modules.moment_style_encoder import MomentStyleEncoder, _moments
from tests.small import randomized


def test_moments_are_those_of_each_region_about_its_own_center() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    mask = torch.zeros(2, 4, 8, 12, dtype=torch.float64)
    mask[:, 0, :5, 2:9], mask[0, 1, 5:, :], mask[1, 2, 6:, 3:] = 1, 1, 1  # region 3 is nowhere
    found = _moments(x, mask).unflatten(2, (6, 3))
    rows, columns = torch.linspace(-1, 1, 8).double(), torch.linspace(-1, 1, 12).double()
    for b, r in ((0, 0), (1, 0), (0, 1), (1, 2)):
        here = mask[b, r].bool()
        u, v = (c[here] for c in (columns.expand(8, 12), rows[:, None].expand(8, 12)))
        u, v = ((c - c.mean()) / c.std(correction=0) for c in (u, v))
        basis = torch.stack([torch.ones_like(u), u, v, u * u - 1, u * v, v * v - 1])
        torch.testing.assert_close(found[b, r], basis @ x[b][:, here].T / here.sum())
    assert not found[:, 3].any() and not found[1, 1].any()


def test_a_code_depends_on_its_own_region_and_not_on_where_that_lies() -> None:
    torch.manual_seed(0)
    encoder = randomized(MomentStyleEncoder(3, 8, channels=4, num_downsample=1))
    image, mask = torch.rand(1, 3, 16, 16) * 2 - 1, torch.zeros(1, 3, 16, 16)
    mask[:, 0, :4], mask[:, 1, 10:] = 1, 1
    codes = encoder(image, mask)
    assert codes.shape == (1, 3, 8) and codes.abs().max() < 1
    other = image.clone()
    other[:, :, 10:] = 0.5
    changed = (encoder(other, mask) - codes).abs().amax(2)[0]
    assert changed[1] > 1e-3 and changed[0] < 1e-6 and changed[2] < 1e-6


def test_codes_under_autocast_are_those_of_float32() -> None:
    torch.manual_seed(0)
    encoder = randomized(MomentStyleEncoder(2, 8, channels=4, num_downsample=1))
    image, mask = torch.rand(1, 3, 64, 64), torch.zeros(1, 2, 64, 64)
    mask[:, 0, 50:56, 48:58], mask[:, 1, :8] = 1, 1  # small and far from the middle
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(image, mask).float()
    torch.testing.assert_close(found, encoder(image, mask), atol=0.03, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_place_far_from_its_region_survives_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = randomized(MomentStyleEncoder(1, 8, channels=4, num_downsample=1, grid=8))
    image, mask = 1 - torch.rand(1, 3, 64, 64) / 2, torch.zeros(1, 1, 64, 64)
    mask[:, 0, 4:7, 4:7], mask[:, 0, 57:60, 57:60] = 1, 1  # most places lie in between, or beyond
    inside: list[torch.Tensor] = []
    hook = encoder.around.register_forward_pre_hook(lambda module, given: inside.append(given[0].float()))
    with torch.autocast("cpu", dtype):
        encoder(image, mask)
    encoder(image, mask)
    hook.remove()
    assert inside[1][..., 0].min() > 0.4  # a mean of pixels in 0.5 .. 1, nowhere nothing
    torch.testing.assert_close(inside[0], inside[1], atol=0.02, rtol=0)


@pytest.mark.parametrize("image, mask", [((18, 16), (19, 18, 16)), ((16, 16), (3, 16, 16))])
def test_what_does_not_fit_is_refused(image, mask) -> None:
    with pytest.raises(ValueError, match=r"multiple of 4|must have shape"):
        MomentStyleEncoder(19, 8)(torch.zeros(1, 3, *image), torch.zeros(1, *mask))


def test_reducing_is_the_encoder_on_averaged_pixels() -> None:
    torch.manual_seed(0)
    encoder = randomized(MomentStyleEncoder(3, 8, channels=4, num_downsample=1, grid=4, input_downsampling=2))
    image, mask = torch.rand(1, 3, 16, 16) * 2 - 1, torch.rand(1, 3, 16, 16)
    small = torch.nn.functional.avg_pool2d(image, 2), torch.nn.functional.avg_pool2d(mask, 2)
    reduced = encoder(image, mask)
    encoder.input_downsampling, encoder.factor = 1, 2
    torch.testing.assert_close(reduced, encoder(*small))


def test_a_size_that_reducing_does_not_divide_is_refused() -> None:
    encoder = MomentStyleEncoder(3, 8, channels=4, num_downsample=1, input_downsampling=2)
    with pytest.raises(ValueError, match="4"):
        encoder(torch.zeros(1, 3, 18, 18), torch.zeros(1, 3, 18, 18))
    with pytest.raises(ValueError, match="input_downsampling must be at least 1, got 0"):
        MomentStyleEncoder(3, 8, input_downsampling=0)
    with pytest.raises(ValueError, match="multiple of 12, which"):
        MomentStyleEncoder(3, 8, input_downsampling=3)(torch.zeros(1, 3, 18, 18), torch.zeros(1, 3, 18, 18))


def test_a_grid_needs_a_convolution() -> None:
    with pytest.raises(ValueError, match="num_downsample must be at least 1 with a grid of 2x2"):
        MomentStyleEncoder(3, 8, num_downsample=0, grid=2)
    image, mask = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert MomentStyleEncoder(3, 8, num_downsample=0)(image, mask).shape == (1, 3, 8)
