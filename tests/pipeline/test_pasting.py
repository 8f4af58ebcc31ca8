"""Pasting: the guided filter against its closed forms, and crops that come back where they were."""

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.color_space import ColorSpace
from ldm.data.images import to_uint8
from ldm.parsing.alignment import Crop
from ldm.parsing.photo_faces import cut_face
from ldm.pipeline.pasting import box_mean, enlarge, extended, guided_filter, paste, region_weights
from ldm.pipeline.region_color import lab_of, parse_color, parse_colors, shifted

SRGB = ColorSpace.srgb()


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 23 + c) + np.cos(y / 19 + 2 * c) for c in range(3)]
    return (128 + 40 * np.stack(waves, -1)).astype(np.uint8)


def test_box_mean_is_the_mean_of_the_pixels_within() -> None:
    image = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    result = box_mean(image, 2)
    assert result[3, 4] == pytest.approx(image[1:6, 2:7].mean(), abs=1e-6)
    assert result[0, 8] == pytest.approx(image[:3, 6:].mean(), abs=1e-6)


def test_guided_filter_keeps_what_the_guide_explains() -> None:
    guide = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    assert np.abs(guided_filter(guide, 3 * guide + 1, 4, 1e-7) - (3 * guide + 1)).max() < 1e-3
    image = np.random.default_rng(1).random((40, 40)).astype(np.float32)
    flat = guided_filter(np.full_like(image, 0.5), image, 4, 1e-4)  # no edges: a = 0, b = mean
    assert np.abs(flat - box_mean(box_mean(image, 4), 4)).max() < 1e-4


@pytest.mark.parametrize(
    "crop", [Crop(150 + 120j, 60 + 0j), Crop(150 + 120j, 50 + 30j), Crop(20 + 200j, 70 - 20j)]
)
def test_an_untouched_crop_comes_back(crop: Crop) -> None:
    """Turned and across the border too; 256 pixels for a crop of about 120, so only interpolation is lost."""
    photo = smooth(240, 300)
    own = SRGB.to_lab(to_uint8(cut_face(Image.fromarray(photo), crop, (256, 256))))
    weights = region_weights(photo, SRGB, crop, np.ones((256, 256), np.float32))
    result = paste(photo, SRGB, weights, crop, lambda lab, grid: enlarge(own, grid), 1.0)
    assert weights.max() == 1
    assert np.abs(result.astype(int) - photo).max() <= 3
    assert (result == photo)[weights == 0].all()


def test_nothing_is_changed_where_the_region_is_empty() -> None:
    photo = smooth(60, 80)
    weights = region_weights(photo, SRGB, Crop(40 + 30j, 20 + 0j), np.zeros((32, 32), np.float32))
    assert not weights.any()
    assert (
        paste(photo, SRGB, weights, Crop(40 + 30j, 20 + 0j), lambda lab, grid: lab + 50, 1.0) == photo
    ).all()


def test_a_region_goes_on_beyond_the_crop_only_with_its_surroundings() -> None:
    photo, crop, mask = smooth(200, 200), Crop(100 + 100j, 40 + 0j), np.ones((32, 32), np.float32)
    assert region_weights(photo, SRGB, crop, mask)[100, 145] == 0
    assert region_weights(photo, SRGB, crop, mask, mask)[100, 145] == 1
    assert region_weights(photo, SRGB, crop, mask, mask)[100, 165] == 0


def test_changes_are_continued_beyond_the_region() -> None:
    change = np.zeros((32, 32, 3), np.float32)
    mask = np.zeros((32, 32), np.float32)
    mask[8:16, 8:16] = 1
    change[mask > 0] = (10, -5, 3)
    assert np.abs(extended(change, mask) - np.float32((10, -5, 3))).max() < 1e-4


@pytest.mark.parametrize("target", ["#7a3b2e", "black", "platinum", "crimson"])
def test_shifted_regions_have_the_mean_asked_for(target: str) -> None:
    lab = np.stack([np.linspace(35, 55, 99), np.full(99, 8.0), np.full(99, 14.0)], -1).astype(np.float32)
    result = shifted(lab, lab.mean(0), lab_of(target))
    assert np.abs(result.mean(0) - lab_of(target)).max() < 3
    assert (np.diff(result[:, 0]) >= 0).all() and np.ptp(result[:, 0]) > 1


def test_colors_by_region() -> None:
    assert parse_colors("u_lip, l_lip=#ff0000") == {"u_lip": (255, 0, 0), "l_lip": (255, 0, 0)}
    assert parse_color("Auburn") == (0x6D, 0x35, 0x24)
    with pytest.raises(ValueError, match="REGIONS=COLOR"):
        parse_colors("crimson")


def test_enlarge_at_the_centers_of_pixels_is_the_image() -> None:
    image = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    y, x = torch.meshgrid((torch.arange(5) * 2 + 1) / 5 - 1, (torch.arange(6) * 2 + 1) / 6 - 1, indexing="ij")
    assert np.abs(enlarge(image, torch.stack([x, y], -1)) - image).max() < 1e-5


def test_darkened_regions_keep_their_highlights_contrast() -> None:
    light = np.linspace(0, 100, 201, dtype=np.float32)
    lab = np.stack([light, np.zeros_like(light), np.zeros_like(light)], -1)
    mean = np.array([50, 0, 0], np.float32)
    found = shifted(lab, mean, np.array([28, 0, 0], np.float32))[:, 0]
    slopes = np.diff(found) / np.diff(light)
    assert found[0] == 0 and abs(found[100] - 28) < 1e-4  # black stays black, the mean becomes the target
    assert (slopes > 0.1).all() and (np.diff(slopes) > -1e-4).all()
    np.testing.assert_allclose(slopes[151:], 1, atol=1e-4)


def test_colors_outside_the_gamut_lose_chroma_not_lightness() -> None:
    space = ColorSpace.srgb()
    blue = lab_of("blue")
    lab = np.stack([[light, *blue[1:]] for light in (10, 30, 60, 90)]).astype(np.float32)
    inside = space.in_gamut(lab)
    np.testing.assert_allclose(inside[:, 0], lab[:, 0])
    np.testing.assert_allclose(
        np.arctan2(inside[:, 2], inside[:, 1]), np.arctan2(lab[:, 2], lab[:, 1]), atol=1e-4
    )
    codes = np.rint(255 * space.from_lab(inside)).astype(np.uint8)
    np.testing.assert_allclose(space.to_lab(codes)[:, 0], lab[:, 0], atol=0.7)
    assert np.hypot(*inside[2, 1:]) > 40  # not gray


def test_colors_of_pixels_are_inside_their_gamut() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (4096, 3), dtype=np.uint8)
    codes[:8] = [[255 * (i >> c & 1) for c in range(3)] for i in range(8)]
    space = ColorSpace.srgb()
    lab = space.to_lab(codes)
    assert space.in_gamut(lab) is lab
