"""Draws and curves that give the same bits on every machine.

Only `+ - * /`, `sqrt`, `floor` and comparisons are used: IEEE 754 fixes their results, whereas `sin` or `exp` may
differ in the last place between processors, which could move a pixel across a region's border.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float]
Item = TypeVar("Item")

# Each kind of draw has a stream of its own, so that shape, style and flip are independent.
SHAPE_STREAM, STYLE_STREAM, FLIP_STREAM = 0, 1, 2


class Draws:
    """A sequence of random numbers that (seed, index, stream) determines.

    Raises:
        ValueError: `seed` or `index` is negative.
    """

    def __init__(self, seed: int, index: int, stream: int) -> None:
        if seed < 0 or index < 0:
            raise ValueError(f"seed and index must be 0 or more; found seed {seed}, index {index}")
        sequence = np.random.SeedSequence([seed, index, stream])
        self._generator = np.random.Generator(np.random.PCG64(sequence))
        self._ready: list[float] = []

    def unit(self) -> float:
        """Draw from [0, 1)."""
        if not self._ready:
            self._ready = self._generator.random(256).tolist()  # at once: a call costs more than a draw
        return self._ready.pop()

    def between(self, low: float, high: float) -> float:
        """Draw from [low, high)."""
        if not self._ready:
            return low + (high - low) * self.unit()
        return low + (high - low) * self._ready.pop()

    def chance(self, probability: float) -> bool:
        """Draw True with `probability`."""
        return self.unit() < probability

    def choose(self, items: Sequence[Item], weights: Sequence[float] | None = None) -> Item:
        """Draw one of `items`, in proportion to `weights` where they are given."""
        if weights is None:
            return items[int(self.unit() * len(items))]
        left = self.unit() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]

    def colour(self, palette: Sequence[Colour], jitter: float = 0.03) -> Colour:
        """Draw a colour: a blend of two neighbours of `palette`, each channel moved by up to `jitter`."""
        place = self.unit() * (len(palette) - 1)
        first = int(place)
        red, green, blue = blend_colours(palette[first], palette[first + 1], place - first)
        between = self.between
        return (
            clamp(red + between(-jitter, jitter)),
            clamp(green + between(-jitter, jitter)),
            clamp(blue + between(-jitter, jitter)),
        )

    def hue(self, saturation: float, value: float) -> Colour:
        """Draw a colour of any hue with the given HSV saturation and value."""
        turn = self.unit() * 6
        red, green, blue = clamp(abs(turn - 3) - 1), clamp(2 - abs(turn - 2)), clamp(2 - abs(turn - 4))
        grey, part = value * (1 - saturation), value * saturation
        return grey + part * red, grey + part * green, grey + part * blue


def clamp(value: float) -> float:
    """Limit a number to [0, 1]."""
    return 0.0 if value < 0 else 1.0 if value > 1 else value


def blend_colours(first: Colour, second: Colour, amount: float) -> Colour:
    """Return `first` at amount 0, `second` at 1."""
    (red, green, blue), (red_2, green_2, blue_2) = first, second
    return red + (red_2 - red) * amount, green + (green_2 - green) * amount, blue + (blue_2 - blue) * amount


def wave(x: Array) -> Array:
    """Return a sine-like curve of period 1 in [-1, 1], made of parabolas: 16 t (1/2 - |t|), t = frac(x) - 1/2."""
    t = x - np.floor(x)
    t -= 0.5
    rest = np.abs(t)
    rest -= 0.5
    t *= rest
    t *= -16
    return t


def ramp(x: Array) -> Array:
    """Return x limited to [0, 1]."""
    limited = np.maximum(x, 0.0)
    return np.minimum(limited, 1.0, out=limited)


def bump(squared: Array) -> Array:
    """Return max(0, 1 - squared)^2: 1 at the centre, smoothly 0 from distance 1 on; takes the squared distance."""
    inside = 1 - squared
    np.maximum(inside, 0.0, out=inside)
    inside *= inside
    return inside


def mix(first: Array | Colour, second: Array | Colour, amount: Array) -> Array:
    """Blend two colours, each (3,) or (3, N), by `amount` (N,): 0 gives the first. Returns (3, N)."""
    a, b = _columns(first), _columns(second)
    mixed = (b - a) * amount
    mixed += a
    return mixed


def flat(colour: Colour, like: Array) -> Array:
    """Return one colour for every entry of `like` (N,), as (3, N)."""
    return np.repeat(_columns(colour), like.size, axis=1)


def _columns(colour: Array | Colour) -> Array:
    """Return a colour as (3, 1), a (3, N) array unchanged."""
    return np.array(colour, dtype=np.float64)[:, None] if isinstance(colour, tuple) else colour
