"""Where the regions of a generated face lie: the numbers, independent of resolution and of colour.

Lengths are in head units. The head frame (u, v) has its origin in the middle of the face, u to the right of the picture
and v down; the body frame (x, y) is the picture, [-1, 1] both ways. Every quantity here shows in the label map, so that
label map and style together determine the picture. As in CelebAMask-HQ, `l_` regions lie on the right of the picture.
"""

from dataclasses import dataclass

import numpy as np

from ldm.data.synthetic.rng import Array


@dataclass(frozen=True)
class Pose:
    """Places the head in the picture; `half_tan` is the tangent of half the tilt angle."""

    x: float
    y: float
    scale: float
    half_tan: float

    @property
    def rotation(self) -> tuple[float, float]:
        """Return (cos, sin) of the tilt, by the rational formula that every machine rounds alike."""
        t = self.half_tan
        return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)

    def to_head(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Turn picture coordinates into (u, v)."""
        cos, sin = self.rotation
        cos, sin = cos / self.scale, sin / self.scale
        dx, dy = x - self.x, y - self.y
        return cos * dx + sin * dy, cos * dy - sin * dx

    def to_picture(self, u: float, v: float) -> tuple[float, float]:
        """Turn a point (u, v) into picture coordinates."""
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
        """Return a value that is 1 on the face's outline and smaller inside."""
        below = np.maximum(v, 0.0) * (1 / self.bottom)
        t2 = below + np.minimum(v, 0.0) * (1 / self.top)
        t2 *= t2
        below *= below
        half = self.width * np.maximum(1 - self.taper * below, 0.2)
        return (u / half) ** 2 + t2 * (1 - self.square + self.square * t2)


@dataclass(frozen=True)
class Eyes:
    """Both eyes: distance from the middle, height, half sizes, slant, whether drawn under dark lenses."""

    spacing: float
    v: float
    width: float
    height: float
    slant: float

    def local(self, u: Array, v: Array, side: Array | int, turn: float) -> tuple[Array, Array]:
        """Return (p, q): [-1, 1] from inner to outer corner, and from upper to lower lid at the eye's middle."""
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

    def local(self, u: Array, v: Array, side: Array | int, centre: float, turn: float) -> tuple[Array, Array]:
        """Return (p, q): [-1, 1] along the brow outwards, and across it."""
        p = (u - turn - side * centre) * (side / self.width)
        middle = self.v - self.arch * (1 - p * p) - self.slant * p
        return p, (v - middle) / (self.thickness * (1.15 - 0.45 * p))


@dataclass(frozen=True)
class Nose:
    """The nose: top and tip, half width at the bridge and at the nostrils."""

    top: float
    tip: float
    bridge: float
    wing: float

    def local(self, u: Array, v: Array, turn: float) -> tuple[Array, Array]:
        """Return (p, t): p in [-1, 1] across the nose at this height, t from 0 at the top to 1 at the tip."""
        t = (v - self.top) / (self.tip - self.top)
        t3 = t * t * t
        half = self.bridge + (self.wing - self.bridge) * t3
        return (u - turn * (1 + 0.4 * t)) / np.maximum(half, 0.01), t


@dataclass(frozen=True)
class Mouth:
    """The mouth: height, half width, thickness of the lips, gap between them, smile, depth of the cupid's bow."""

    v: float
    width: float
    upper: float
    lower: float
    gap: float
    smile: float
    bow: float

    def local(self, u: Array, v: Array, turn: float) -> tuple[Array, Array, Array]:
        """Return (p, w, envelope): [-1, 1] across, height over the bent lip line, and 1 - p^2."""
        p = (u - 1.1 * turn) / self.width
        p2 = p * p
        return p, v - self.v + self.smile * (p2 - 0.4), np.maximum(1 - p2, 0.0)


@dataclass(frozen=True)
class Hair:
    """The hair's silhouette and the opening that it leaves for the face; `kind` "bald" has none.

    `length` is the v where the hair at the sides ends, `front` whether it falls over the shoulders, `fringe` the v
    down to which it covers the forehead (-9: no fringe), `ragged` the depth of the locks along its edge, `bun` the
    radius of a knot on top.
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
    """Both ears: half sizes and height, and which earrings hang from them ("none", "stud", "hoop", "drop")."""

    width: float
    height: float
    v: float
    earring: str
    ring_size: float


@dataclass(frozen=True)
class Glasses:
    """Glasses: half sizes of a lens, squareness, width of the frame, whether dark lenses hide the eyes."""

    width: float
    height: float
    square: float
    frame: float
    dark: bool

    def lens(self, u: Array, v: Array, eyes: Eyes, turn: float) -> tuple[Array, Array, Array]:
        """Return (p, q, f): place within the nearer lens, and f = 1 on its outer edge, smaller inside."""
        p = (np.abs(u - turn) - eyes.spacing) / self.width
        q = (v - eyes.v) / self.height
        p2, q2 = p * p, q * q
        return p, q, (1 - self.square) * (p2 + q2) + self.square * (p2 * p2 + q2 * q2)


@dataclass(frozen=True)
class Hat:
    """A hat ("beanie", "brim", "cap"): v and bend of its lower edge, fullness, height, reach of the brim."""

    kind: str
    edge: float
    bend: float
    fullness: float
    height: float
    brim: float

    def rise(self, u: Array, v: Array) -> Array:
        """Return the height over the hat's lower edge: 0 on the edge, 1 at the crown's top."""
        return (self.edge + self.bend * u * u - v) / self.height


@dataclass(frozen=True)
class Body:
    """Neck, shoulders and clothes in the picture's frame; `collar` is "round", "vee", "high" or "wide"."""

    x: float
    neck: float
    shoulder: float
    slope: float
    collar: str
    depth: float
    opening: float

    def neckline(self, x: Array, y: Array) -> Array:
        """Return how far (x, y) lies below the clothes' upper edge: positive on the clothes."""
        across = np.abs(x - self.x)
        edge = self.shoulder + self.slope * np.maximum(across - self.neck, 0.0)
        if self.collar == "high":
            return y - np.where(across < self.neck + 0.03, edge - self.depth, edge)
        t = across / self.opening
        drop = 1 - t if self.collar == "vee" else 1 - t * t
        return y - edge - self.depth * np.maximum(drop, 0.0)


@dataclass(frozen=True)
class Necklace:
    """A necklace: half width, depth of its arc, thickness, radius of the pendant (0: none)."""

    width: float
    depth: float
    thickness: float
    pendant: float

    def local(self, x: Array, y: Array, body: Body) -> tuple[Array, Array]:
        """Return (p, q): [-1, 1] along the chain, and the distance from it in units of its thickness."""
        p = (x - body.x) / self.width
        slope = np.abs(p) * (2 * self.depth / self.width)
        height = y - body.shoulder + 0.06 - self.depth * (1 - p * p)
        return p, height / (self.thickness * (1 + slope))


@dataclass(frozen=True)
class FaceShape:
    """Everything about where the regions of one face lie. Parts that the face lacks are None."""

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
