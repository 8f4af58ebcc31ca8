"""Encoder options of photo files: the original's quality, and metadata where each format keeps it."""

from __future__ import annotations

from typing import Any

from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

METADATA_KEY = "sca-dm"  # text entry of a PNG that holds the recipe
ORIENTED = ("JPEG", "TIFF", "WEBP", "PNG")  # formats that store pixels in any EXIF orientation
DEFAULTS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "HEIF": {"quality": 95},
    "AVIF": {"quality": 95},
}


def metadata_options(format: str, exif: bytes | None, xmp: bytes, recipe: str) -> dict[str, Any]:
    """Return the options with which Pillow writes EXIF, XMP and the recipe into a format."""
    if format == "TIFF":  # Pillow ignores `xmp` here; a TIFF's tags are its EXIF
        tags = Image.Exif()
        if exif is not None:
            tags.load(exif)
        tags[TiffImagePlugin.XMP] = xmp
        return {"exif": tags}
    options: dict[str, Any] = {"xmp": xmp}
    if exif is not None:
        options["exif"] = exif if format in ORIENTED else _upright(exif)
    if format == "PNG":
        texts = PngInfo()
        texts.add_text(METADATA_KEY, recipe)
        texts.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
        options["pnginfo"] = texts
    return options


def encoding_of(image: Image.Image) -> dict[str, Any]:
    """Return encoder options that match the quality of the file."""
    options: dict[str, Any] = {}
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode == "RGB":
        sampling = JpegImagePlugin.get_sampling(image)
        options = {"qtables": image.quantization, "subsampling": max(sampling, 0)}
        if image.info.get("progressive"):
            options["progressive"] = True
    if "dpi" in image.info and image.format in ("JPEG", "PNG", "TIFF"):
        options["dpi"] = image.info["dpi"]
    if image.format == "WEBP" and _lossless_webp(image):
        options["lossless"] = True
    return options  # TIFF stays uncompressed: libtiff does not write EXIF beside compressed pixels


def _lossless_webp(image: Image.Image) -> bool:
    """Return whether a WebP's pixels are in a lossless chunk, which comes early in the file."""
    assert isinstance(image, ImageFile.ImageFile) and image.fp is not None  # it is open
    image.fp.seek(0)
    return b"VP8L" in image.fp.read(4096)


def _upright(exif: bytes) -> bytes:
    """Return EXIF data that says the image is stored upright."""
    parsed = Image.Exif()
    parsed.load(exif)
    parsed[ExifTags.Base.Orientation] = 1
    return parsed.tobytes()
