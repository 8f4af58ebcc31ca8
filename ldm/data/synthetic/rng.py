"""Random numbers and curves with bit-identical results on all machines.

Only `+ - * /`, `sqrt`, `floor` and comparisons are used: IEEE 754 defines their results exactly, whereas
`sin` or `exp` may differ in the last bit between processors, which could move a pixel across a region
boundary.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Color = tuple[float, float, float]
Item = TypeVar("Item")

# Separate streams, so that shape, style and flip of a face are independent.
SHAPE_STREAM, STYLE_STREAM, FLIP_STREAM = 0, 1, 2


class FaceRNG:
    """Random number generator of a face: a function of (seed, index, stream).

    Raises:
        ValueError: `seed` or `index` is negative.
    """

    def __init__(self, seed: int, index: int, stream: int) -> None:
        if seed < 0 or index < 0:
            raise ValueError(f"seed and index must be at least 0, got seed {seed}, index {index}")
        sequence = np.random.SeedSequence([seed, index, stream])
        self._generator = np.random.Generator(np.random.PCG64(sequence))
        self._buffer: list[float] = []

    def random(self) -> float:
        """Sample uniformly from [0, 1)."""
        if not self._buffer:
            self._buffer = self._generator.random(256).tolist()  # in blocks, which is faster
        return self._buffer.pop()

    def uniform(self, low: float, high: float) -> float:
        """Sample uniformly from [low, high)."""
        if not self._buffer:
            return low + (high - low) * self.random()
        return low + (high - low) * self._buffer.pop()

    def bernoulli(self, probability: float) -> bool:
        """Return True with `probability`."""
        return self.random() < probability

    def choice(self, items: Sequence[Item], weights: Sequence[float] | None = None) -> Item:
        """Sample one of `items`, with probabilities proportional to `weights` if given."""
        if weights is None:
            return items[int(self.random() * len(items))]
        remaining = self.random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            remaining -= weight
            if remaining < 0:
                return item
        return items[-1]

    def color(self, palette: Sequence[Color], jitter: float = 0.03) -> Color:
        """Sample a color: a blend of two neighbors in `palette`, each channel changed by up to `jitter`."""
        place = self.random() * (len(palette) - 1)
        first = int(place)
        red, green, blue = blend_colors(palette[first], palette[first + 1], place - first)
        return (
            clamp(red + self.uniform(-jitter, jitter)),
            clamp(green + self.uniform(-jitter, jitter)),
            clamp(blue + self.uniform(-jitter, jitter)),
        )

    def hue(self, saturation: float, value: float) -> Color:
        """Sample a color of random hue with the given HSV saturation and value."""
        hue = self.random() * 6
        red, green, blue = clamp(abs(hue - 3) - 1), clamp(2 - abs(hue - 2)), clamp(2 - abs(hue - 4))
        gray, chroma = value * (1 - saturation), value * saturation
        return gray + chroma * red, gray + chroma * green, gray + chroma * blue


def clamp(value: float) -> float:
    """Clamp a number to [0, 1]."""
    return 0.0 if value < 0 else 1.0 if value > 1 else value


def blend_colors(first: Color, second: Color, amount: float) -> Color:
    """Interpolate linearly: `first` at amount 0, `second` at 1."""
    (red, green, blue), (red_2, green_2, blue_2) = first, second
    return red + (red_2 - red) * amount, green + (green_2 - green) * amount, blue + (blue_2 - blue) * amount


def wave(x: Array) -> Array:
    """Return a sine-like curve of period 1 and range [-1, 1]: 16 t (1/2 - |t|) with t = frac(x) - 1/2."""
    t = x - np.floor(x)
    t -= 0.5
    rest = np.abs(t)
    rest -= 0.5
    t *= rest
    t *= -16
    return t


def ramp(x: Array) -> Array:
    """Return x clamped to [0, 1]."""
    limited = np.maximum(x, 0.0)
    return np.minimum(limited, 1.0, out=limited)


def bump(squared: Array) -> Array:
    """Return max(0, 1 - squared)^2 of a squared distance: 1 at the center, smoothly 0 from distance 1 on."""
    inside = 1 - squared
    np.maximum(inside, 0.0, out=inside)
    inside *= inside
    return inside


def mix(first: Array | Color, second: Array | Color, amount: Array) -> Array:
    """Interpolate two colors, each (3,) or (3, N), by `amount` (N,); 0 gives the first. Return (3, N)."""
    a, b = _columns(first), _columns(second)
    mixed = (b - a) * amount
    mixed += a
    return mixed


def flat(color: Color, like: Array) -> Array:
    """Return one color as (3, N), for `like` (N,)."""
    return np.repeat(_columns(color), like.size, axis=1)


def _columns(color: Array | Color) -> Array:
    """Return a color as (3, 1), a (3, N) array unchanged."""
    return np.array(color, dtype=np.float64)[:, None] if isinstance(color, tuple) else color
