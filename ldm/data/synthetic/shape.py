"""Geometry of a synthetic face, independent of resolution and style.

Lengths are in head units. The head frame (u, v) has its origin in the middle of the face, u to the right of
the image and v down; the body frame (x, y) is the image, [-1, 1] in both directions. Every parameter affects
the label map, so that label map and style determine the image. As in CelebAMask-HQ, `l_` regions are on the
right of the image.
"""

from dataclasses import dataclass

import numpy as np

from ldm.data.synthetic.rng import Array


@dataclass(frozen=True)
class Pose:
    """Position, scale and tilt of the head in the image; `half_tan` is the tangent of half the tilt angle."""

    x: float
    y: float
    scale: float
    half_tan: float

    @property
    def rotation(self) -> tuple[float, float]:
        """Return (cos, sin) of the tilt by the rational formula, which is bit-identical on all machines."""
        t = self.half_tan
        return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)

    def to_head(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Convert image coordinates to the head frame (u, v)."""
        cos, sin = self.rotation
        cos, sin = cos / self.scale, sin / self.scale
        dx, dy = x - self.x, y - self.y
        return cos * dx + sin * dy, cos * dy - sin * dx

    def to_image(self, u: float, v: float) -> tuple[float, float]:
        """Convert a point (u, v) of the head frame to image coordinates."""
        cos, sin = self.rotation
        return self.x + self.scale * (cos * u - sin * v), self.y + self.scale * (sin * u + cos * v)


@dataclass(frozen=True)
class Head:
    """Outline of the face: half width, height above and below the middle, taper and squareness of the jaw, turn."""

    width: float
    top: float
    bottom: float
    taper: float
    square: float
    turn: float

    def outline(self, u: Array, v: Array) -> Array:
        """Return an implicit function of the outline: 1 on it, less than 1 inside."""
        below = np.maximum(v, 0.0) * (1 / self.bottom)
        t2 = below + np.minimum(v, 0.0) * (1 / self.top)
        t2 *= t2
        below *= below
        half = self.width * np.maximum(1 - self.taper * below, 0.2)
        return (u / half) ** 2 + t2 * (1 - self.square + self.square * t2)


@dataclass(frozen=True)
class Eyes:
    """Both eyes: distance from the middle, height, half width and height, slant."""

    spacing: float
    v: float
    width: float
    height: float
    slant: float

    def local(self, u: Array, v: Array, side: Array | int, turn: float) -> tuple[Array, Array]:
        """Return (p, q): [-1, 1] from the inner to the outer corner, and from the upper to the lower lid at p = 0."""
        p = (u - turn - side * self.spacing) * (side / self.width)
        return p, (v - self.v + self.slant * p) / self.height


@dataclass(frozen=True)
class Brows:
    """Both brows: height, half width, thickness, arch, slant."""

    v: float
    width: float
    thickness: float
    arch: float
    slant: float

    def local(self, u: Array, v: Array, side: Array | int, center: float, turn: float) -> tuple[Array, Array]:
        """Return (p, q): [-1, 1] along the brow, outwards, and across it."""
        p = (u - turn - side * center) * (side / self.width)
        middle = self.v - self.arch * (1 - p * p) - self.slant * p
        return p, (v - middle) / (self.thickness * (1.15 - 0.45 * p))


@dataclass(frozen=True)
class Nose:
    """Nose: height of top and tip, half width at the bridge and at the nostrils."""

    top: float
    tip: float
    bridge: float
    wing: float

    def local(self, u: Array, v: Array, turn: float) -> tuple[Array, Array]:
        """Return (p, t): [-1, 1] across the nose, and 0 at the top to 1 at the tip."""
        t = (v - self.top) / (self.tip - self.top)
        t3 = t * t * t
        half = self.bridge + (self.wing - self.bridge) * t3
        return (u - turn * (1 + 0.4 * t)) / np.maximum(half, 0.01), t


@dataclass(frozen=True)
class Mouth:
    """Mouth: height, half width, thickness of the lips, opening, smile, depth of the cupid's bow."""

    v: float
    width: float
    upper: float
    lower: float
    gap: float
    smile: float
    bow: float

    def local(self, u: Array, v: Array, turn: float) -> tuple[Array, Array, Array]:
        """Return (p, w, envelope): [-1, 1] across, distance below the lip line, and 1 - p^2."""
        p = (u - 1.1 * turn) / self.width
        p2 = p * p
        return p, v - self.v + self.smile * (p2 - 0.4), np.maximum(1 - p2, 0.0)


@dataclass(frozen=True)
class Hair:
    """Silhouette of the hair, and its opening for the face; the kind "bald" has no hair.

    `length` is the v at which the hair at the sides ends, `front` whether it falls over the shoulders,
    `fringe` the v down to which it covers the forehead (-9: no fringe), `ragged` the depth of the locks along
    the edge, `bun` the radius of a bun on top.
    """

    kind: str
    volume: float
    height: float
    length: float
    flare: float
    opening: float
    hairline: float
    parting: float
    sweep: float
    fringe: float
    ragged: float
    locks: float
    bun: float
    front: bool


@dataclass(frozen=True)
class Ears:
    """Both ears: half width and height, position, and kind of earrings: "none", "stud", "hoop" or "drop"."""

    width: float
    height: float
    v: float
    earring: str
    ring_size: float


@dataclass(frozen=True)
class Glasses:
    """Glasses: half width and height of a lens, squareness, width of the frame, whether they are dark."""

    width: float
    height: float
    square: float
    frame: float
    dark: bool

    def lens(self, u: Array, v: Array, eyes: Eyes, turn: float) -> tuple[Array, Array, Array]:
        """Return (p, q, f): coordinates in the nearer lens, and 1 on its outer edge, less than 1 inside."""
        p = (np.abs(u - turn) - eyes.spacing) / self.width
        q = (v - eyes.v) / self.height
        p2, q2 = p * p, q * q
        return p, q, (1 - self.square) * (p2 + q2) + self.square * (p2 * p2 + q2 * q2)


@dataclass(frozen=True)
class Hat:
    """Hat of a kind "beanie", "brim" or "cap": v and curvature of the lower edge, fullness, height, brim."""

    kind: str
    edge: float
    bend: float
    fullness: float
    height: float
    brim: float

    def rise(self, u: Array, v: Array) -> Array:
        """Return the height over the lower edge: 0 on the edge, 1 at the top."""
        return (self.edge + self.bend * u * u - v) / self.height


@dataclass(frozen=True)
class Body:
    """Neck, shoulders and clothes in image coordinates; `collar` is "round", "vee", "high" or "wide"."""

    x: float
    neck: float
    shoulder: float
    slope: float
    collar: str
    depth: float
    opening: float

    def neckline(self, x: Array, y: Array) -> Array:
        """Return the distance of (x, y) below the upper edge of the clothes: positive on the clothes."""
        across = np.abs(x - self.x)
        edge = self.shoulder + self.slope * np.maximum(across - self.neck, 0.0)
        if self.collar == "high":
            return y - np.where(across < self.neck + 0.03, edge - self.depth, edge)
        t = across / self.opening
        drop = 1 - t if self.collar == "vee" else 1 - t * t
        return y - edge - self.depth * np.maximum(drop, 0.0)


@dataclass(frozen=True)
class Necklace:
    """Necklace: half width, depth, thickness, radius of the pendant (0: none)."""

    width: float
    depth: float
    thickness: float
    pendant: float

    def local(self, x: Array, y: Array, body: Body) -> tuple[Array, Array]:
        """Return (p, q): [-1, 1] along the chain, and the distance from it in units of the thickness."""
        p = (x - body.x) / self.width
        slope = np.abs(p) * (2 * self.depth / self.width)
        height = y - body.shoulder + 0.06 - self.depth * (1 - p * p)
        return p, height / (self.thickness * (1 + slope))


@dataclass(frozen=True)
class FaceShape:
    """Geometry of a face; None for parts that it lacks."""

    pose: Pose
    head: Head
    eyes: Eyes
    brows: Brows
    nose: Nose
    mouth: Mouth
    hair: Hair
    ears: Ears
    body: Body
    glasses: Glasses | None
    hat: Hat | None
    necklace: Necklace | None
