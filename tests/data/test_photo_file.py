"""Photo files: color space round trips and metadata."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ldm.data.color_space import ColorProfileError, ColorSpace
from ldm.data.images import ImageError
from ldm.data.photo_file import PhotoFile
from ldm.data.photo_metadata import SOURCE_TYPE, edited_xmp, recipe_in

SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("space", [ColorSpace.srgb(), ColorSpace.from_profile(SRGB_PROFILE)])
def test_lab_round_trip(space: ColorSpace) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert (np.rint(255 * space.from_lab(space.to_lab(pixels))) == pixels).all()


def test_lab_of_white_and_gray() -> None:
    white, gray = ColorSpace.srgb().to_lab(np.array([[255] * 3, [119] * 3], np.uint8))
    assert np.allclose(white, (100, 0, 0), atol=0.05) and np.allclose(gray, (50.03, 0, 0), atol=0.1)


def test_damaged_profile() -> None:
    with pytest.raises(ColorProfileError):
        ColorSpace.from_profile(SRGB_PROFILE[:150])


def test_xmp_records_the_last_edit_and_keeps_other_entries() -> None:
    first = edited_xmp(None, "first")
    own = first.replace(b"</rdf:RDF>", b'<rdf:Description xmlns:z="urn:z/" z:kept="yes"/></rdf:RDF>')
    second = edited_xmp(own[own.index(b"?>") + 2 : own.rindex(b"<?xpacket")], 'second "quoted" <&>')
    assert second.count(SOURCE_TYPE.encode()) == 1 and b"kept" in second
    assert recipe_in(first[first.index(b"?>") + 2 : first.rindex(b"<?xpacket")]) == "first"
    assert b"first" not in second


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_lossless_round_trip(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"in{suffix}", **options)
    file = PhotoFile.open(tmp_path / f"in{suffix}")
    file.save(tmp_path / f"out{suffix}", 255 - file.pixels, "recipe")
    with Image.open(tmp_path / f"out{suffix}") as saved:
        assert (np.asarray(saved) == 255 - pixels).all()


@pytest.mark.parametrize(
    ("data", "match"),
    [(b"no image", "not.jpg"), (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC photo; .*pillow-heif")],
)
def test_files_that_are_no_photo(data: bytes, match: str, tmp_path: Path) -> None:
    """An error, whether pillow-heif is installed or not."""
    (tmp_path / "not.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=match):
        PhotoFile.open(tmp_path / "not.jpg")


def test_panoramas_and_unknown_suffixes(tmp_path: Path) -> None:
    Image.new("RGB", (500, 100)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="500 x 100 pixels, a panorama"):
        PhotoFile.open(tmp_path / "wide.png")
    Image.new("RGB", (50, 50)).save(tmp_path / "in.png")
    file = PhotoFile.open(tmp_path / "in.png")
    with pytest.raises(ImageError, match=r"'\.xyz'"):
        file.save(tmp_path / "out.xyz", file.pixels, "")
