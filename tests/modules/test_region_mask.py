"""The places of a region, and what the style of each says to the pixels."""

import pytest
import torch

from ldm.modules.attention import StyleAttention
from ldm.modules.moment_style_encoder import MomentStyleEncoder
from ldm.modules.region_mask import Frames, RegionMask, coarse_cell_weights
from ldm.modules.unet import UNet
from tests.modules.test_unet import SMALL, inputs
from tests.small import randomized

GRID = 3


def places(mask: torch.Tensor, size: tuple[int, int], grid: int, about: dict | None = None) -> torch.Tensor:
    return Frames.of(mask, about).cell_weights(size, grid)


def rectangle(top: int, left: int, height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    mask[..., top : top + height, left : left + width] = 1
    return mask


def test_places_share_each_pixel_and_go_with_the_region() -> None:
    there = places(rectangle(2, 4, 8, 6), (32, 32), GRID)
    assert there.shape == (1, 1, GRID**2, 32, 32)
    torch.testing.assert_close(there.sum(2), torch.ones(1, 1, 32, 32, dtype=torch.float64))
    moved = places(rectangle(12, 9, 8, 6), (32, 32), GRID)
    torch.testing.assert_close(moved[..., 10:, 5:], there[..., :-10, :-5])


def test_places_are_as_large_as_the_region() -> None:
    small, large = (places(rectangle(0, 0, n, n), (32, 32), GRID)[0, 0] for n in (8, 16))
    # The pixels of the small one are four of the large one's; spreads of whole pixels differ a little.
    pooled = torch.nn.functional.avg_pool2d(large, 2)[:, :8, :8]
    assert (small[:, :8, :8] - pooled).abs().max() < 0.02


def test_each_place_is_the_most_of_its_own_part_of_the_region() -> None:
    weights = places(rectangle(0, 0, 30, 30), (32, 32), GRID)[0, 0]
    found = weights[:, [2, 15, 28]][:, :, [2, 15, 28]].argmax(0)
    assert found.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_places_in_the_picture_stay_when_their_region_moves() -> None:
    masks = [torch.cat([rectangle(top, 3, 9, 9)] * 2, 1) for top in (2, 20)]
    before, after = (places(mask, (16, 16), 4, {1: "image"}) for mask in masks)
    assert torch.equal(before[:, 1], after[:, 1])
    assert (before[:, 0] - after[:, 0]).abs().max() > 0.5
    sixteenths = before[0, 1].view(4, 4, 4, 4, 4, 4).mean((3, 5))  # what each place has of each
    assert (sixteenths.flatten(0, 1).flatten(1).argmax(1) == torch.arange(16)).all()


def test_places_about_another_region_are_that_ones() -> None:
    mask = torch.cat([rectangle(0, 0, 32, 9), rectangle(8, 12, 9, 9)], 1)
    about = places(mask, (32, 32), GRID, {0: 1})
    own = places(mask, (32, 32), GRID)
    assert torch.equal(about[:, 0], own[:, 1]) and torch.equal(about[:, 1], own[:, 1])
    mask[:, 1] = 0  # where that is missing, a region's own
    assert torch.equal(places(mask, (32, 32), GRID, {0: 1})[:, 0], own[:, 0])


@pytest.mark.parametrize(("frames", "sees_both"), [({0: "image"}, True), ({}, False)])
def test_a_coarser_grid_lies_in_the_same_frame(frames: dict, sees_both: bool) -> None:
    torch.manual_seed(0)
    encoder = randomized(
        MomentStyleEncoder(
            1, 8, channels=4, num_downsample=1, grid=4, coarse_grids={0: 2}, region_frames=frames
        )
    ).double()
    torch.nn.init.zeros_(encoder.into.weight)
    image = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    mask = rectangle(0, 0, 32, 8)  # a strip on the left

    def first_place(left: int) -> torch.Tensor:
        """Return what a light of four columns does to the place at the picture's or the strip's left."""
        lit = image.clone()
        lit[..., left : left + 4] = 0.1
        return (encoder(lit, mask) - encoder(image, mask)).view(4, 4, 8)[1, 0].norm()

    assert (first_place(4) > 0.5 * first_place(0)) == sees_both


@pytest.mark.parametrize("build", ["encoder", "unet"])
@pytest.mark.parametrize(
    ("frames", "grid"),
    [({19: 0}, 2), ({-1: 0}, 2), ({0: 19}, 2), ({0: 1.0}, 2), ({0: "whole"}, 2), ({0: "image"}, 1)],
)
def test_frames_that_cannot_be_are_refused(build: str, frames: dict, grid: int) -> None:
    with pytest.raises(ValueError, match=r"region frames must map regions in"):
        if build == "encoder":
            MomentStyleEncoder(19, 8, grid=grid, region_frames=frames)
        else:
            UNet(**{**SMALL, "style_grid": grid, "region_frames": frames})


def test_tokens_that_are_all_alike_are_one_token() -> None:
    one, many = UNet(**SMALL), UNet(**{**SMALL, "style_grid": 2, "context_dim": 4 * SMALL["context_dim"]})
    many.load_state_dict(randomized(one).state_dict())
    x, t, style, mask = inputs()
    with torch.no_grad():
        torch.testing.assert_close(many(x, t, style.repeat(1, 1, 4), mask), one(x, t, style, mask))


@pytest.mark.parametrize("frames", [{}, {0: "image", 2: 1}])
@pytest.mark.parametrize("shares", [False, True])
def test_the_lookup_is_attention_with_the_bias_of_the_mask(shares: bool, frames: dict) -> None:
    attention = randomized(StyleAttention(32, 12, heads=4, masked=True)).double()
    torch.nn.init.zeros_(attention.to_q.weight)  # no pixel prefers one place of its region to another
    x, _, style, mask = inputs()
    style, mask = style.repeat(1, 1, 4).double(), mask.double()
    style = style + torch.randn_like(style)
    regions = RegionMask(mask, shares, 2, frames)
    lookup = attention.condition(style, regions, (8, 8)).values
    regions.exclusive = False
    tokens = attention.condition(style, regions, (8, 8))
    pixels = torch.randn(len(x), 64, 32, dtype=torch.float64)
    torch.testing.assert_close(attention(pixels, tokens), lookup)


def test_a_token_speaks_to_its_own_region_and_most_to_its_own_place() -> None:
    attention = randomized(StyleAttention(32, 12, heads=4, masked=True)).double()
    mask = torch.cat([rectangle(0, 0, 32, 16), rectangle(0, 16, 32, 16)], 1)
    style = torch.randn(1, 2, 4 * 12, dtype=torch.float64)
    regions = RegionMask(mask, grid=2)
    before = attention.condition(style, regions, (8, 8)).values
    style[0, 0, :12] += 1  # the upper left token of the left half
    change = (attention.condition(style, regions, (8, 8)).values - before).abs().mean(2).view(8, 8)
    assert change[:, 4:].max() < 1e-12
    assert change[:4, :2].mean() > 10 * change[4:, 2:4].mean() > 0


def test_an_encoders_token_sees_its_own_place() -> None:
    torch.manual_seed(0)
    encoder = randomized(MomentStyleEncoder(1, 8, channels=4, num_downsample=1, grid=2)).double()
    torch.nn.init.zeros_(encoder.into.weight)  # the moments, which all tokens share
    image, mask = torch.rand(1, 3, 32, 32).double() * 2 - 1, rectangle(0, 0, 32, 32)
    codes = encoder(image, mask)
    assert codes.shape == (1, 1, 32)
    image[..., :8, :8] = 0.5
    change = (encoder(image, mask) - codes).abs().view(4, 8).mean(1)
    assert change[0] > 10 * change[3] > 0


def test_a_place_without_a_pixel_shows_the_nearest_ones() -> None:
    torch.manual_seed(0)
    encoder = randomized(MomentStyleEncoder(1, 8, channels=4, num_downsample=1, grid=8)).double()
    torch.nn.init.zeros_(encoder.into.weight)
    mask = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    mask[..., 4:28, 4:28] = 0  # a frame, like hair around a face
    image = 1 - torch.rand(1, 3, 32, 32).double() / 2
    codes = encoder(image, mask).view(8, 8, 8)
    middle = codes[2:6, 2:6].flatten(0, 1)
    nothing = encoder.out(
        torch.nn.functional.silu(encoder.into.bias[None, :, :] + encoder.around.bias)
    ).tanh()[0]
    assert (middle - nothing).abs().amax(1).min() > 0.01
    image[..., 16:] = -0.5
    change = (encoder(image, mask).view(8, 8, 8) - codes).abs().mean(2)
    assert change[3:5, 2].max() < 0.1 * change[3:5, 5].min()


def test_a_coarse_regions_tokens_see_more_of_it_and_the_others_do_not_change() -> None:
    torch.manual_seed(0)
    fine = randomized(MomentStyleEncoder(2, 8, channels=4, num_downsample=1, grid=4)).double()
    image = torch.rand(1, 3, 32, 32).double() * 2 - 1
    mask = torch.cat([rectangle(0, 0, 32, 16), rectangle(0, 16, 32, 16)], 1)
    codes = fine(image, mask).unflatten(2, (16, 8))
    spreads = []
    for side in (4, 2, 1):
        coarse = MomentStyleEncoder(
            2, 8, channels=4, num_downsample=1, grid=4, coarse_grids={1: side} if side < 4 else {}
        )
        coarse.load_state_dict(fine.state_dict())
        found = coarse.double()(image, mask).unflatten(2, (16, 8))
        assert torch.equal(found[:, 0], codes[:, 0])
        spreads.append(found[0, 1].std(0).mean().item())
    assert (
        spreads[0] > 1.5 * spreads[1] > 0 and spreads[2] < 1e-9
    )  # a single place is the same for all tokens


def test_at_the_places_of_a_grid_a_coarser_one_shares_them_as_it_shares_pixels() -> None:
    weights = coarse_cell_weights(9, 3, torch.zeros((), dtype=torch.float64))
    assert weights.shape == (9, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(9, dtype=torch.float64))
    assert weights.argmax(1).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]  # three of nine within each of three
    torch.testing.assert_close(weights.flip(0, 1), weights)


@pytest.mark.parametrize("coarse", [{2: 1}, {0: 4}, {0: 0}])
def test_a_coarse_grid_that_cannot_be_is_refused(coarse: dict[int, int]) -> None:
    with pytest.raises(
        ValueError, match=r"coarse_grids must map regions in \[0, 1\] to grid sides in \[1, 3\]"
    ):
        MomentStyleEncoder(2, 8, grid=4, coarse_grids=coarse)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_grid": 0}, "style_grid must be 1.*got 0"),
        ({"style_grid": 2, "use_mask_attn": False}, "with use_mask_attn"),
        ({"style_grid": 5}, "context_dim must be a multiple of .* = 25"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{**SMALL, **options})


def test_places_in_half_precision_are_those_of_float32() -> None:
    mask = torch.zeros(1, 2, 256, 256)  # the first region is everywhere, the second nowhere
    mask[:, 0] = 1
    found, expected = places(mask.half(), (32, 32), GRID), places(mask, (32, 32), GRID)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
