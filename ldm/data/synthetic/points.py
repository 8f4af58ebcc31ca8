"""What a look is: it paints the pixels of one region, and sees nothing of the others."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ldm.data.synthetic.rng import Array, Colour, ramp
from ldm.data.synthetic.shape import FaceShape

WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.03, 0.02, 0.03)


@dataclass(frozen=True)
class Points:
    """The N pixels of one region.

    Attributes:
        shape: The face they belong to.
        side: (N,) +1 in an `l_` region (right half of the picture), -1 in an `r_` region, 0 elsewhere.
        u, v: (N,) place in the head's frame.
        x, y: (N,) place in the picture, [-1, 1].
        shadow: (N,) 0..1, how deep each pixel lies in the shadow of the region above it.
        pixel: Width of a pixel in head units, for edges that are one pixel soft.
    """

    shape: FaceShape
    side: Array
    u: Array
    v: Array
    x: Array
    y: Array
    shadow: Array
    pixel: float

    def soft(self, distance: Array, scale: float = 1.0) -> Array:
        """Return 1 where `distance` (in lengths of `scale`) is positive, 0 where negative, soft over one pixel."""
        return ramp(distance * (scale / self.pixel) + 0.5)


class Look(ABC):
    """How one region looks."""

    @abstractmethod
    def paint(self, points: Points) -> Array:
        """Return the colours (3, N) of the region's pixels."""
