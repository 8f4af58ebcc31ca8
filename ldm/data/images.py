"""Photos: files <-> float32 tensors in [-1, 1]; errors name the file and the fix."""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ldm.atomic_files import write_file
from ldm.data.color_profiles import to_srgb
from ldm.data.png_checksums import verify_png

PngImagePlugin.MAX_TEXT_CHUNK = (
    2**24
)  # bytes of a text chunk; image editors write more than the 1 MB that Pillow allows by default
# Supported formats. Pillow supports more, some of which run external programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
MAX_PIXELS = 64_000_000  # larger images are rejected before decoding, to bound memory
Size = int | Sequence[int]
Source = str | Path | BinaryIO

_UNIT = np.arange(256, dtype=np.float32) / np.float32(127.5) - 1  # byte -> value in [-1, 1]
_ORIENTATION = 0x0112  # the EXIF tag
GRAY_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class ImageError(ValueError):
    """An image or label map is unusable; the message names the file and the fix."""


def as_size(size: Size) -> tuple[int, int]:
    """Return `size`, an int or [H, W], as (H, W).

    Raises:
        ValueError: neither of the two, or not positive.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(f"size must be a positive integer or [height, width], got {size!r}")
    return pair[0], pair[1]


def load_image(path: str | Path, size: Size | None = None) -> Tensor:
    """Read a photo: float32 (3, H, W) in [-1, 1].

    Converts any mode to RGB and color profiles to sRGB, applies the EXIF orientation, and composites on
    white.

    Args:
        path: The file, in any format that Pillow reads.
        size: Output size, an int or [H, W]: bicubic resize with antialiasing, which does not preserve the
            aspect ratio. None keeps the file's size.

    Raises:
        ImageError: missing, damaged, truncated or too large.
    """
    size = None if size is None else as_size(size)
    with open_image(path) as photo:
        return to_tensor(read_rgb(photo, size))


@contextmanager
def open_image(
    source: Source | bytes,
    formats: tuple[str, ...] | None = None,
    name: str = "",
    max_pixels: int | None = None,
) -> Iterator[Image.Image]:
    """Open an image without decoding it; converts Pillow errors inside the `with` to ImageError.

    Args:
        source: Path, open file or bytes.
        formats: Allowed Pillow formats, such as "PNG"; None for FORMATS.
        name: Name in errors; by default the path, or the `str` of an open file.
        max_pixels: Maximum number of pixels, checked before decoding; None for MAX_PIXELS.

    Raises:
        ImageError: missing, another format, damaged, or too large.
    """
    max_pixels = max_pixels or MAX_PIXELS
    path = name or ("the image" if isinstance(source, bytes) else source)
    formats = formats or FORMATS
    Image.init()
    if isinstance(source, str | Path) and Path(source).exists() and not Path(source).is_file():
        found = "a folder" if Path(source).is_dir() else "a pipe or device"
        raise ImageError(f"{path} cannot be read: it is {found}, expected an image file")
    try:
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source,
            formats=[format for format in formats if format in Image.OPEN],  # HEIF needs pillow-heif
        ) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(_too_large(path, f"{width} x {height} pixels", max_pixels))
            image.filename = str(path)
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_too_large(path, "far more pixels than a photo", max_pixels)) from error
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{path} {_describe_format(source, formats)}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ImageError(f"{path} is truncated or damaged ({error}); copy or download it again") from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (H, W) after the EXIF orientation, from the header only."""
    width, height = image.size
    return (width, height) if _orientation(image) >= 5 else (height, width)


def read_rgb(photo: Image.Image, size: Size | None = None) -> Image.Image:
    """Decode an opened photo upright as RGB, resized to `size` (int or [H, W]) if given."""
    target = None if size is None else as_size(size)
    verify_png(photo)
    if target is not None:
        # JPEGs decode at 1/2, 1/4 or 1/8 in a fraction of the time. At least twice the target size is left to
        # the antialiased resize, so the result stays as sharp.
        height, width = target[::-1] if _orientation(photo) >= 5 else target
        photo.draft(None, (2 * width, 2 * height))
    photo.load()
    if _orientation(photo) > 1:
        ImageOps.exif_transpose(photo, in_place=True)
    rgb = _to_rgb(to_srgb(photo))
    if target is not None and rgb.size != target[::-1]:
        rgb = rgb.resize(target[::-1], Image.Resampling.BICUBIC)
    return rgb


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an RGB image to float32 (3, H, W) in [-1, 1]."""
    channels_first = np.asarray(image.convert("RGB")).transpose(2, 0, 1)  # (3, H, W)
    # A lookup table is faster than torch arithmetic, which would start its thread pool for every image.
    return torch.from_numpy(np.take(_UNIT, channels_first))


def as_unit(pixels: Tensor) -> Tensor:
    """Map uint8 pixels 0..255 to float32 in [-1, 1]; return floating-point images unchanged."""
    return pixels if pixels.is_floating_point() else pixels.float() / 127.5 - 1


def to_uint8(image: Tensor) -> np.ndarray:
    """Convert images (..., 3, H, W) in [-1, 1] to uint8 (..., H, W, 3), rounded and clamped.

    Raises:
        ValueError: not three channels, or non-finite values.
    """
    if image.ndim < 3 or image.shape[-3] != 3:
        raise ValueError(f"image must have shape (..., 3, H, W), got {tuple(image.shape)}")
    image = image.detach().float().cpu()
    if not image.isfinite().all():
        raise ValueError("image has non-finite values (NaN or inf)")
    return ((image + 1) * 127.5).round().clamp(0, 255).byte().movedim(-3, -1).contiguous().numpy()


def save_png(
    path: str | Path, image: Image.Image | np.ndarray | Tensor, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a PNG atomically.

    Args:
        path: The file; missing folders are created.
        image: A PIL image, uint8 (H, W, 3) or (H, W), or a tensor (3, H, W) in [-1, 1].
        metadata: Text entries of the PNG, by name.
    """
    data = encode_png(image, metadata)
    write_file(path, lambda file: file.write(data))


def encode_png(image: Image.Image | np.ndarray | Tensor, metadata: Mapping[str, str] | None = None) -> bytes:
    """Encode a PNG; arguments as in `save_png`."""
    array = to_uint8(image) if isinstance(image, Tensor) else image
    pil_image = Image.fromarray(array) if isinstance(array, np.ndarray) else array
    texts = PngInfo()
    if pil_image.mode == "RGB":
        texts.add(b"sRGB", b"\0")  # marks the values as sRGB for viewers
    for name, text in (metadata or {}).items():
        texts.add_text(name, str(text))
    file = io.BytesIO()
    pil_image.save(file, "PNG", pnginfo=texts)
    return file.getvalue()


def narrowed(image: Image.Image) -> Image.Image:
    """Convert a 16-bit gray image (a mode in GRAY_16_BIT) to 8 bits."""
    gray = np.asarray(image).astype(np.float64) / 257
    return Image.fromarray(gray.round().clip(0, 255).astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: transparency over white, 16-bit gray to its upper 8 bits."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in GRAY_16_BIT:
        return narrowed(image).convert("RGB")
    if image.mode == "F":
        raise ImageError(
            f"{getattr(image, 'filename', 'image')} has floating-point pixels; save it with 8 bits per channel"
        )
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation 1..8; damaged EXIF data counts as upright."""
    if image.format == "PNG":
        image.load()  # otherwise getexif would, hiding errors of damaged pixels
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _describe_format(source: Source | bytes, formats: tuple[str, ...]) -> str:
    """Describe a file that is not an image of these formats, from its first bytes."""
    try:
        if isinstance(source, str | Path):
            with open(source, "rb") as file:
                head = file.read(64)
        else:
            head = source[:64] if isinstance(source, bytes) else (source.seek(0), source.read(64))[1]
    except OSError:
        head = b""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in (b"heic", b"heix", b"heif", b"mif1", b"msf1", b"hevc"):
        if "HEIF" in formats:
            return "is a HEIC photo; pip install pillow-heif to read it, or export it as JPEG or PNG"
        return "is a HEIC photo, which is not supported; export it as JPEG or PNG"
    if brand in (b"avif", b"avis"):
        return "is an AVIF image, which is not supported here; export it as JPEG or PNG"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6", b"%PDF")):
        return "is a PostScript or PDF file, which is not supported; export it as JPEG or PNG"
    return f"is no {' or '.join(formats[:2])} image, or its beginning is damaged; copy or download it again"


def _too_large(path: Source, found: str, max_pixels: int) -> str:
    return f"{path} has {found}; the maximum is {max_pixels // 1_000_000} million. Resize it first"
