"""Appearance of background, clothes, hat, glasses, earrings and necklace."""

from dataclasses import dataclass

import numpy as np

from ldm.data.synthetic.points import BLACK, WHITE, Appearance, Points
from ldm.data.synthetic.rng import Array, Color, bump, flat, mix, ramp, wave

PATTERNS = ("plain", "stripes", "hoops", "diagonal", "checks", "dots")


def pattern(kind: str, across: Array, down: Array, period: float) -> Array:
    """Return a pattern in [0, 1]: the fraction of the second color at each point."""
    a, d = across / period, down / period
    if kind == "stripes":
        return ramp(2.5 * wave(a) + 0.5)
    if kind == "hoops":
        return ramp(2.5 * wave(d) + 0.5)
    if kind == "diagonal":
        return ramp(2.5 * wave(0.7 * (a + d)) + 0.5)
    if kind == "checks":
        return 0.5 * ramp(2.5 * wave(a) + 0.5) + 0.5 * ramp(2.5 * wave(d) + 0.5)
    if kind == "dots":
        return ramp(2.5 * (wave(a) + wave(d)) - 2.2)
    return np.zeros(across.shape)


@dataclass(frozen=True)
class BackgroundAppearance(Appearance):
    """Background: a gradient between two colors, a pattern, and blurred lights (x, y, radius, color)."""

    near: Color
    far: Color
    direction: tuple[float, float]
    kind: str
    period: float
    strength: float
    lights: tuple[tuple[float, float, float, Color], ...]

    def paint(self, points: Points) -> Array:
        """Return the colors of the background."""
        x, y = points.x, points.y
        along = x * self.direction[0] + y * self.direction[1]
        colors = mix(self.near, self.far, ramp(0.5 + 0.5 * along))
        if self.kind != "plain":
            colors = mix(colors, WHITE, self.strength * pattern(self.kind, x, y, self.period))
        for center_x, center_y, radius, color in self.lights:
            squared = ((x - center_x) ** 2 + (y - center_y) ** 2) / (radius * radius)
            colors = mix(colors, color, 0.75 * ramp(4 * (1 - squared)))
        return colors * (1.03 - 0.14 * (x * x + y * y))


@dataclass(frozen=True)
class ClothAppearance(Appearance):
    """Clothes: two colors, pattern, folds, color of the collar."""

    color: Color
    second: Color
    kind: str
    period: float
    edge: Color
    folds: float
    light: tuple[float, float]

    def paint(self, points: Points) -> Array:
        """Return the colors of the clothes."""
        body = points.shape.body
        across, down = points.x - body.x, points.y - body.shoulder
        colors = mix(self.color, self.second, pattern(self.kind, across, down, self.period))
        below = body.neckline(points.x, points.y)
        near_neck = np.abs(across) < max(body.opening, body.neck + 0.03)
        colors = mix(colors, self.edge, points.soft(0.055 - below) * near_neck)
        light = 0.96 + 0.16 * self.light[0] * across - 0.15 * across * across
        light += self.folds * wave(1.6 * across * (1 + 0.5 * down) + 0.25 * wave(down * 2))
        return colors * (light * (1 - 0.25 * points.shadow))


@dataclass(frozen=True)
class HatAppearance(Appearance):
    """Hat: two colors and pattern of the crown, color of the band, ribs."""

    color: Color
    second: Color
    kind: str
    period: float
    band: Color
    ribs: float
    light: tuple[float, float]

    def paint(self, points: Points) -> Array:
        """Return the colors of crown, band and brim."""
        hat, head = points.shape.hat, points.shape.head
        assert hat is not None  # there are hat pixels
        rise = hat.rise(points.u, points.v)
        across = points.u / head.width
        colors = mix(self.color, self.second, pattern(self.kind, points.u, points.v, self.period))
        low, high = {"beanie": (-1.0, 0.36), "brim": (0.12, 0.38), "cap": (0.05, 0.16)}[hat.kind]
        band = points.soft(rise - low, hat.height) * points.soft(high - rise, hat.height)
        colors = mix(colors, self.band, band)
        light = 1.02 + 0.20 * self.light[0] * across - 0.20 * across * across + 0.14 * (rise - 0.5)
        light += self.ribs * wave(across * 6)
        if hat.kind != "beanie":
            light -= 0.30 * bump(((rise - low + 0.03) / 0.10) ** 2) * (np.abs(across) < 1.25)
        return colors * light


@dataclass(frozen=True)
class GlassesAppearance(Appearance):
    """Glasses: color and mottling of the frame, tint of the upper and lower lenses, glare."""

    frame: Color
    mottle: float
    tint: Color
    tint_below: Color
    glare: float

    def paint(self, points: Points) -> Array:
        """Return the colors of frame and lenses; dark lenses have the same tint at lower brightness."""
        glasses, shape = points.shape.glasses, points.shape
        assert glasses is not None  # there are pixels of glasses
        p, q, f = glasses.lens(points.u, points.v, shape.eyes, shape.head.turn)
        lenses = mix(self.tint, self.tint_below, ramp(0.5 + 0.5 * q))
        if glasses.dark:
            lenses *= 0.42
        streak = bump(((p * 0.8 + q + 0.25) / 0.30) ** 2) + 0.6 * bump(((p * 0.8 + q - 0.45) / 0.14) ** 2)
        lenses = mix(lenses, WHITE, self.glare * ramp(streak))
        frame = flat(self.frame, p) * (1.0 + self.mottle * wave(p * 1.7 + 0.4 * wave(q * 1.3)) - 0.12 * q)
        inner = 1 - glasses.frame
        return mix(lenses, frame, points.soft(f - inner * inner, 0.5 * glasses.height))


@dataclass(frozen=True)
class EarringAppearance(Appearance):
    """Earrings: metal, and color and visibility of the gem."""

    metal: Color
    gem: Color
    gem_share: float

    def paint(self, points: Points) -> Array:
        """Return the colors of both earrings."""
        ears, head = points.shape.ears, points.shape.head
        across = (np.abs(points.u - 0.4 * head.turn) - head.width) / ears.ring_size
        down = (points.v - ears.v - ears.height) / ears.ring_size
        gleam = wave(across * 7 + down * 5)
        colors = mix(flat(self.metal, down) * (1.0 - 0.22 * gleam), WHITE, 0.5 * ramp(gleam - 0.4))
        gem = ramp((down - 0.07) * 30) * self.gem_share
        return mix(colors, mix(self.gem, WHITE, 0.5 * ramp(gleam - 0.3)), gem)


@dataclass(frozen=True)
class NecklaceAppearance(Appearance):
    """Necklace: metal, number and relief of the beads, color of the pendant."""

    metal: Color
    beads: float
    relief: float
    pendant: Color

    def paint(self, points: Points) -> Array:
        """Return the colors of chain and pendant."""
        necklace, body = points.shape.necklace, points.shape.body
        assert necklace is not None  # there are pixels of a necklace
        p, q = necklace.local(points.x, points.y, body)
        relief = self.relief * wave(p * self.beads)
        colors = mix(flat(self.metal, p) * (1 + relief - 0.12 * q), WHITE, ramp(0.5 * relief - 0.2 * q))
        if necklace.pendant > 0:
            center = body.shoulder - 0.06 + necklace.depth + necklace.pendant
            r2 = ((points.x - body.x) ** 2 + (points.y - center) ** 2) / (necklace.pendant * necklace.pendant)
            gem = mix(self.pendant, BLACK, 0.35 * ramp(r2))
            gem = mix(gem, WHITE, 0.7 * bump(r2 * 3 - 0.4))
            colors = mix(colors, gem, points.soft(1.0 - r2, necklace.pendant) * (r2 < 1))
        return colors
