"""Interface of region appearances: the pixels of a region, and how to paint them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ldm.data.synthetic.rng import Array, Color, ramp
from ldm.data.synthetic.shape import FaceShape

WHITE: Color = (1.0, 1.0, 1.0)
BLACK: Color = (0.03, 0.02, 0.03)


@dataclass(frozen=True)
class Points:
    """The N pixels of one region.

    Attributes:
        shape: Shape of the face.
        side: (N,), +1 in an `l_` region (right half of the image), -1 in an `r_` region, 0 elsewhere.
        u, v: (N,), coordinates in the head frame.
        x, y: (N,), image coordinates in [-1, 1].
        shadow: (N,), strength in [0, 1] of the shadow cast by the region above.
        pixel: Width of a pixel in head units, for antialiased edges.
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
        """Return an antialiased step: 1 where `distance` (in units of `scale`) is positive, 0 where negative."""
        return ramp(distance * (scale / self.pixel) + 0.5)


class Appearance(ABC):
    """Appearance of one region, independent of its shape and of other regions."""

    @abstractmethod
    def paint(self, points: Points) -> Array:
        """Return the colors (3, N) in [0, 1] of the pixels of the region."""
