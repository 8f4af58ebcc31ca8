"""Photo files: upright full-resolution pixels, with everything needed to write the file again."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from ldm.atomic_files import write_file
from ldm.data.color_profiles import to_srgb
from ldm.data.color_space import ColorProfileError, ColorSpace
from ldm.data.images import FORMATS, GRAY_16_BIT, ImageError, narrowed, open_image
from ldm.data.photo_encoding import DEFAULTS, ORIENTED, encoding_of, metadata_options
from ldm.data.photo_metadata import edited_xmp, kept_exif
from ldm.data.png_checksums import verify_png

MAX_PIXELS = 128_000_000  # phones have up to 108 megapixels
MAX_ASPECT = 4  # beyond: panoramas, whose faces are distorted and small
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".avif": "AVIF",
}
# How to store the image upright again after ImageOps.exif_transpose: the inverse of each EXIF orientation.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False)
class PhotoFile:
    """An opened photo.

    Attributes:
        path: the file.
        pixels: uint8 (H, W, 3), upright, in the file's own color space.
        space: color space of the pixels.
        notes: one sentence for each property that saving cannot preserve.
    """

    path: Path
    pixels: np.ndarray
    space: ColorSpace
    notes: tuple[str, ...] = ()
    format: str = "PNG"
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    orientation: int = 1
    exif: bytes | None = None
    exif_with_gps: bytes | None = None
    xmp: bytes | str | None = None
    encoding: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> PhotoFile:
        """Read a photo.

        Raises:
            ImageError: missing, damaged, truncated, not an image, too large, or a panorama.
        """
        _register_heif()
        with open_image(path, (*FORMATS, "HEIF"), max_pixels=MAX_PIXELS) as image:
            _check_shape(path, image)
            notes = _notes(image)
            encoding = encoding_of(image)
            verify_png(image)
            image.load()
            orientation = image.getexif().get(_ORIENTATION, 1)
            orientation = orientation if orientation in _STORED else 1
            exif, exif_with_gps = kept_exif(image), kept_exif(image, gps=True)
            xmp, profile = image.info.get("xmp"), image.info.get("icc_profile")
            format = "JPEG" if image.format == "MPO" else image.format or "PNG"
            upright = ImageOps.exif_transpose(image) if orientation > 1 else image
            rgb, space, profile, converted = _as_rgb(upright, profile)
            alpha = _alpha(upright)
        if format not in SUFFIXES.values():
            notes.append(f"{format} cannot hold an edited photo: it is saved as PNG")
            format = "PNG"
        return cls(
            Path(path),
            np.asarray(rgb),
            space,
            tuple(notes + converted),
            format,
            alpha,
            profile,
            orientation,
            exif,
            exif_with_gps,
            xmp,
            encoding,
        )

    @property
    def suffix(self) -> str:
        """File suffix of the output format."""
        own = self.path.suffix.lower()
        return (
            own
            if SUFFIXES.get(own) == self.format
            else next(s for s, f in SUFFIXES.items() if f == self.format)
        )

    def save(self, path: str | Path, pixels: np.ndarray, recipe: str, *, gps: bool = False) -> None:
        """Write edited pixels, uint8 (H, W, 3), with the orientation, profile and metadata of the photo.

        Args:
            path: the file; its suffix selects the format.
            pixels: the edited photo, upright.
            recipe: description of the edit, for the metadata.
            gps: keep the GPS position.

        Raises:
            ImageError: an unsupported suffix, or the path of the photo itself.
        """
        path = Path(path)
        format = SUFFIXES.get(path.suffix.lower())
        if format is None:
            raise ImageError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}, got {path.suffix!r}")
        if path.exists() and self.path.exists() and path.samefile(self.path):
            raise ImageError(f"{path} is the original photo; choose another name for the edited one")
        image = Image.fromarray(pixels)
        if self.alpha is not None and format != "JPEG" and format != "BMP":
            image.putalpha(Image.fromarray(self.alpha))
        if self.orientation in _STORED and format in ORIENTED:
            image = image.transpose(_STORED[self.orientation])
        options: dict[str, Any] = {}
        if format != "BMP":
            exif = self.exif_with_gps if gps else self.exif
            options = metadata_options(format, exif, edited_xmp(self.xmp, recipe, gps=gps), recipe)
            options |= self.encoding if format == self.format and self.encoding else DEFAULTS.get(format, {})
            if self.profile is not None:
                options["icc_profile"] = self.profile
        data = io.BytesIO()
        image.save(data, format, **options)
        write_file(path, lambda file: file.write(data.getvalue()))


def _as_rgb(
    image: Image.Image, profile: bytes | None
) -> tuple[Image.Image, ColorSpace, bytes | None, list[str]]:
    """Return RGB pixels, their color space, the profile to save, and notes about conversions."""
    if image.mode in GRAY_16_BIT:
        image, profile = narrowed(image), None
    if profile is None and image.mode not in ("CMYK", "LAB"):
        return image.convert("RGB"), ColorSpace.srgb(), None, []
    if profile is not None and image.mode in ("RGB", "RGBA"):
        try:
            return image.convert("RGB"), ColorSpace.from_profile(profile), profile, []
        except ColorProfileError:
            pass  # lookup tables, which littleCMS reads
    converted = to_srgb(image)
    if converted is image:
        return image.convert("RGB"), ColorSpace.srgb(), None, [f"its colors ({image.mode}) are read as sRGB"]
    return converted.convert("RGB"), ColorSpace.srgb(), None, ["its color profile was converted to sRGB"]


def _alpha(image: Image.Image) -> np.ndarray | None:
    """Return the transparency, uint8 (H, W); None if there is none."""
    if "A" not in image.getbands() and "a" not in image.getbands() and "transparency" not in image.info:
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return None if (alpha == 255).all() else alpha


def _notes(image: Image.Image) -> list[str]:
    """Return one sentence for each property that is lost."""
    notes = []
    if getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "HEIF"):
        notes.append(
            f"it is animated ({getattr(image, 'n_frames', 1)} frames): only the first frame is edited"
        )
    if image.mode.startswith("I") or image.mode == "F" or _deep_png(image):
        notes.append("it has 16 bits per channel: it is edited and saved with 8")
    if image.format == "MPO" or (image.format == "JPEG" and b"hdrgm" in (image.info.get("xmp") or b"")):
        notes.append("it contains further images (depth, gain map): only the main one is kept")
    return notes


def _deep_png(image: Image.Image) -> bool:
    """Return whether a PNG has 16 bits per channel, of which Pillow reads 8."""
    if image.format != "PNG" or not isinstance(image, ImageFile.ImageFile):
        return False
    return any("16" in str(tile[3]) for tile in image.tile)


def _check_shape(path: str | Path, image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{path} has {width} x {height} pixels, a panorama; crop it to the face, "
            f"with an aspect ratio of at most {MAX_ASPECT}"
        )
    if image.mode == "F":
        raise ImageError(f"{path} has floating-point pixels; save it with 8 bits per channel")


def _register_heif() -> None:
    """Let Pillow open HEIC files where pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()
