"""Colors of regions: parse color names, and shift a region to a color."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral

import numpy as np
from PIL import ImageColor

from ldm.closest_name import by_similarity
from ldm.data.color_space import ColorSpace

Color = str | tuple[int, int, int]  # a name or #rrggbb; sRGB 0..255
# Colors of hair and lips: means over a region with its shadows and highlights. They take precedence over CSS colors of
# the same name, which are brighter than any hair.
NAMED = {
    "auburn": "#6d3524",
    "black": "#221c19",
    "blond": "#b8935a",
    "blonde": "#b8935a",
    "blue": "#2f5fa8",
    "brown": "#5a3825",
    "brunette": "#3f2a1e",
    "burgundy": "#5f1a2c",
    "chestnut": "#5a3825",
    "copper": "#a1572c",
    "crimson": "#a61c38",
    "ginger": "#b0612f",
    "green": "#3f7d4e",
    "nude": "#b9836f",
    "platinum": "#d3c7b1",
    "plum": "#8e2f5c",
    "rose": "#b8586a",
    "silver": "#b9bcc0",
    "violet": "#6a4ba3",
}
# Chroma relative to the target's, minimum and maximum; capped because highlights reflect the color of the light.
CHROMA_RANGE = 0.3, 1.15
HIGHLIGHT = 1.5  # lightness relative to the mean from which highlights keep their contrast


def parse_color(text: str) -> tuple[int, int, int]:
    """Return the sRGB color of `#7a3b2e`, a name in NAMED, which takes precedence, or a CSS name.

    Raises:
        ValueError: an unknown color; the message names the closest.
    """
    name = text.strip().lower()
    try:
        color = ImageColor.getrgb(NAMED.get(name, name))[:3]
        if max(color) > 255:  # Pillow accepts rgb(300, 0, 0)
            raise ValueError
        return color
    except ValueError:
        known = [*NAMED, *ImageColor.colormap]
        nearest = by_similarity(name, known)[:3]
        raise ValueError(
            f"unknown color {text!r}; write it as #7a3b2e, or by a name such as {', '.join(nearest)}"
        ) from None


def parse_colors(texts: str | Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return the colors by region of `hair=auburn,u_lip,l_lip=crimson`, or of several such texts.

    A color belongs to all regions before it; the last one of a region takes precedence.

    Raises:
        ValueError: no region or an unknown color.
    """
    colors: dict[str, tuple[int, int, int]] = {}
    for text in [texts] if isinstance(texts, str) else texts:
        names: list[str] = []
        for word in re.split(r",(?![^(]*\))", text):  # not within rgb(122, 59, 46)
            region, equals, color = (part.strip() for part in word.partition("="))
            names.append(region)
            if not all(names) or (equals and not color):
                break
            if equals:
                colors |= dict.fromkeys(names, parse_color(color))
                names = []
        if names:
            raise ValueError(f"{text!r} must be REGIONS=COLOR, such as hair=#7a3b2e or u_lip,l_lip=crimson")
    return colors


def rgb_of(color: Color) -> tuple[int, int, int]:
    """Return a color as sRGB in 0..255.

    Raises:
        ValueError: an unknown name, or other than three integers in 0..255.
    """
    if isinstance(color, str):
        return parse_color(color)
    values = list(color)
    if len(values) != 3 or not all(isinstance(one, Integral) and 0 <= one <= 255 for one in values):
        raise ValueError(f"color must be a name, #rrggbb, or three integers in 0..255, got {color!r}")
    red, green, blue = map(int, values)
    return red, green, blue


def lab_of(color: Color) -> np.ndarray:
    """Return a color in CIELAB, float32 (3,); raises ValueError as `rgb_of`."""
    return ColorSpace.srgb().to_lab(np.array(rgb_of(color), np.uint8))


def shifted(lab: np.ndarray, mean: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return CIELAB (..., 3) of a region with the mean color `mean` (3,), shifted to the mean `target` (3,).

    Shading is preserved: chroma follows lightness within CHROMA_RANGE, as on a lit surface. A region that
    becomes lighter is shifted. A region that becomes darker follows a curve through black: pigment darkens
    what a surface scatters, but not its highlights.
    """
    light = lab[..., 0] + (target[0] - mean[0])
    if target[0] < mean[0]:
        light = _darkened(lab[..., 0], max(float(mean[0]), 1), float(target[0]))
    shade = np.clip(light / max(float(target[0]), 1), *CHROMA_RANGE)[..., None]
    chroma = target[1:] * shade + 0.3 * (lab[..., 1:] - mean[1:])
    return np.concatenate([np.clip(light, 0, 100)[..., None], chroma], -1)


def _darkened(light: np.ndarray, mean: float, target: float) -> np.ndarray:
    """Return lightness on a smooth curve through (0, 0) and (mean, target).

    It is a parabola up to the lightness `HIGHLIGHT * mean`, where its slope is 1, and goes on with that
    slope. For targets too dark for that, the parabola is less curved, so that shadows keep at least 0.3 of
    the mean's slope.
    """
    ratio = target / mean
    bend = min((1 - ratio) / (2 * HIGHLIGHT - 1), 0.7 * ratio)  # of slope (ratio - bend) at black
    bright = HIGHLIGHT * mean
    below = np.minimum(light, bright)
    curve = (ratio - bend) * below + bend * below**2 / mean
    return curve + (ratio - bend + 2 * HIGHLIGHT * bend) * (light - below)
