"""Conversion of photos with ICC profiles to sRGB."""

import io
import warnings

from PIL import Image, ImageCms

# Color space of a profile -> compatible image modes.
CHANNELS = {"RGB": ("RGB", "RGBA"), "CMYK": ("CMYK",), "GRAY": ("L",)}


def to_srgb(photo: Image.Image) -> Image.Image:
    """Convert a decoded photo to sRGB (RGB or RGBA); return it unchanged without a profile.

    A damaged profile, or one for other channels, is ignored with a warning, as in browsers.
    """
    profile = photo.info.get("icc_profile")
    if not profile:
        return photo
    photo = photo.convert("RGBA" if "transparency" in photo.info else "RGB") if photo.mode == "P" else photo
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if photo.mode not in CHANNELS.get(space, ()):
            raise ImageCms.PyCMSError(f"it is for {space}, the photo has the mode {photo.mode}")
        if "srgb" in (source.profile.profile_description or "").lower():
            return photo
        mode = "RGBA" if photo.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(photo, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        name = getattr(photo, "filename", "") or "a photo"
        warnings.warn(f"{name}: its color profile cannot be used ({error}); read as sRGB", stacklevel=2)
        return photo
    assert converted is not None
    return converted
