"""Appearance of skin, eyes, lips and hair.

Each appearance depends on nothing but what the pixels of its region show, so that a style encoder can infer
it. Colors are (3, N) in [0, 1].
"""

from dataclasses import dataclass

import numpy as np

from ldm.data.synthetic.points import BLACK, WHITE, Appearance, Points
from ldm.data.synthetic.rng import Array, Color, bump, flat, mix, ramp, wave

BLUSH: Color = (0.86, 0.30, 0.30)


@dataclass(frozen=True)
class Complexion(Appearance):
    """Properties shared by all skin of a head: tone, direction of the light, redness, gloss."""

    tone: Color
    light: tuple[float, float]
    blush: float
    gloss: float

    def shade(self, colors: Array, points: Points) -> Array:
        """Shade the skin as an ellipsoid, darker under hair and chin."""
        head = points.shape.head
        across, down = points.u / head.width, points.v / head.bottom
        light = 1.0 + 0.20 * (self.light[0] * across + self.light[1] * down)
        light -= 0.16 * np.maximum(across * across + 0.5 * down * down - 0.3, 0.0)
        light *= 1 - 0.35 * points.shadow
        return colors * light


@dataclass(frozen=True)
class SkinAppearance(Complexion):
    """Skin of the face: complexion, freckles, stubble, eye shadow."""

    freckles: float
    stubble: float
    shadow: Color
    shadow_strength: float

    def paint(self, points: Points) -> Array:
        """Return the colors of the face."""
        eyes, mouth = points.shape.eyes, points.shape.mouth
        turn = points.shape.head.turn
        u, v = np.abs(points.u - turn), points.v
        colors = self.shade(self._color(u, points), points)
        socket = bump((u / (1.1 * eyes.spacing)) ** 2 + ((v - eyes.v + 0.03) / 0.13) ** 2)
        chin = bump((u / 0.14) ** 2 + ((v - mouth.v - 0.13) / 0.045) ** 2)
        colors *= 1 - 0.10 * socket - 0.12 * chin
        forehead = bump(((points.u - 0.15 * self.light[0]) / 0.22) ** 2 + ((v + 0.36) / 0.13) ** 2)
        lit_cheek = turn + self.light[0] * eyes.spacing
        cheek = bump(((points.u - lit_cheek) / 0.13) ** 2 + ((v - 0.10) / 0.09) ** 2)
        return mix(colors, WHITE, self.gloss * (forehead + 0.8 * cheek))

    def _color(self, u: Array, points: Points) -> Array:
        """Return the unshaded colors of the skin; `u` is the distance from the middle of the face."""
        v, eyes, mouth = points.v, points.shape.eyes, points.shape.mouth
        beside = u - eyes.spacing
        cheeks = bump(((beside - 0.06) / 0.19) ** 2 + ((v - 0.17) / 0.17) ** 2)
        colors = mix(self.tone, BLUSH, self.blush * cheeks)
        if self.shadow_strength > 0:
            lids = bump((beside / (1.5 * eyes.width)) ** 2 + ((v - eyes.v + 0.02) / (2.1 * eyes.height)) ** 2)
            colors = mix(colors, self.shadow, self.shadow_strength * lids * (v < eyes.v + 0.01))
        if self.freckles > 0:
            spots = (
                wave(points.u * 10 + 0.3 * wave(v * 3.3)) + wave(v * 11 + 0.3 * wave(points.u * 4.3)) - 1.1
            )
            here = ramp(spots * 2) * (v < 0.35) * (v > -0.05) * (u < 0.4)
            colors = mix(colors, (0.45, 0.22, 0.12), self.freckles * here)
        if self.stubble > 0:
            away = (u / 0.75) ** 2 + (v - mouth.v + 0.30) ** 2
            grain = 0.92 + 0.08 * wave(points.u * 21) * wave(v * 19)
            beard = ramp((away - 0.12) * 9) * ramp((v - 0.14) * 4)
            moustache = bump((u / 0.24) ** 2 + ((v - mouth.v + 0.085) / 0.06) ** 2)
            colors = mix(colors, (0.16, 0.12, 0.11), self.stubble * np.maximum(beard, moustache) * grain)
        return colors


@dataclass(frozen=True)
class NoseAppearance(Complexion):
    """Nose: highlight on the ridge, dark sides, nostrils, redness of the tip."""

    def paint(self, points: Points) -> Array:
        """Return the colors of the nose."""
        p, t = points.shape.nose.local(points.u, points.v, points.shape.head.turn)
        colors = self.shade(flat(self.tone, p), points)
        tip = bump((p / 1.1) ** 2 + ((t - 0.86) / 0.30) ** 2)
        colors = mix(colors, BLUSH, 0.8 * self.blush * tip)
        side = p * (0.5 + 0.5 * ramp(t))
        colors *= 1 + 0.13 * self.light[0] * side - 0.20 * p * p * p * p
        colors *= 1 - 0.16 * ramp((t - 0.9) * 6)
        nostrils = bump(((np.abs(p) - 0.5) / 0.32) ** 2 + ((t - 0.95) / 0.075) ** 2)
        colors = mix(colors, (0.16, 0.06, 0.05), 0.75 * nostrils)
        ridge = bump(((p - 0.2 * self.light[0]) / 0.5) ** 2) * (0.35 + 0.65 * bump(((t - 0.78) / 0.2) ** 2))
        return mix(colors, WHITE, (0.10 + self.gloss) * ridge)


@dataclass(frozen=True)
class EarAppearance(Complexion):
    """Ear: skin with a darker concha and a redder rim."""

    def paint(self, points: Points) -> Array:
        """Return the colors of one ear."""
        ears, head = points.shape.ears, points.shape.head
        across = (points.u - points.side * head.width) / ears.width
        down = (points.v - ears.v) / ears.height
        colors = self.shade(mix(self.tone, BLUSH, np.full(across.shape, 0.10 + 0.4 * self.blush)), points)
        shell = bump(((across - 0.25 * points.side) / 0.65) ** 2 + ((down + 0.1) / 0.65) ** 2)
        return colors * (1.06 - 0.38 * shell)


@dataclass(frozen=True)
class NeckAppearance(Complexion):
    """Neck: shaded to the sides, dark below the chin."""

    def paint(self, points: Points) -> Array:
        """Return the colors of neck and shoulders."""
        body = points.shape.body
        across = (points.x - body.x) / body.neck
        turned = across / (1 + np.abs(across))
        light = 0.92 + 0.22 * self.light[0] * turned - 0.16 * across * across / (1 + across * across)
        light *= 1 - 0.40 * points.shadow
        hollow = bump((across / 0.35) ** 2 + ((points.y - body.shoulder - 0.03) / 0.07) ** 2)
        return flat(self.tone, across) * (light * (1 - 0.12 * hollow))


@dataclass(frozen=True)
class BrowAppearance(Appearance):
    """Brow: color, and contrast of the hairs."""

    color: Color
    hairs: float

    def paint(self, points: Points) -> Array:
        """Return the colors of one brow."""
        shape = points.shape
        p, q = shape.brows.local(points.u, points.v, points.side, shape.eyes.spacing, shape.head.turn)
        light = 1.08 + self.hairs * wave(p * 5 + 0.3 * q) - 0.10 * q
        return flat(self.color, p) * light


@dataclass(frozen=True)
class EyeAppearance(Appearance):
    """Eye: color and size of the iris, gaze, color of the sclera, darkness of the lashes."""

    iris: Color
    iris_size: float
    gaze: tuple[float, float]
    white: Color
    lashes: float

    def paint(self, points: Points) -> Array:
        """Return the colors of one eye: sclera, iris with rim and pupil, highlight, lashes."""
        eyes = points.shape.eyes
        p, q = eyes.local(points.u, points.v, points.side, points.shape.head.turn)
        colors = mix(self.white, (0.55, 0.42, 0.42), 0.6 * p * p + 0.25 * ramp(-q))
        across = p * (points.side * eyes.width) - self.gaze[0] * eyes.width
        down = q * eyes.height - self.gaze[1] * eyes.height
        radius = self.iris_size * (0.55 * eyes.height + 0.030)
        r = np.sqrt(across * across + down * down) / radius
        glow = mix(self.iris, WHITE, 0.30 * ramp(down / radius) * ramp(1.2 - r))
        glow = glow * (1.1 - 0.55 * r * r * r * ramp(1.2 - r))
        colors = mix(colors, glow, points.soft(1 - r, radius))
        colors = mix(colors, BLACK, points.soft(0.45 - r, radius))
        lid = 1 - p * p
        lash = ramp(1.15 - (q + lid) * eyes.height / 0.028)
        colors = mix(colors, (0.05, 0.03, 0.03), self.lashes * lash)
        catch = (across / radius + 0.32) ** 2 + (down / radius + 0.38) ** 2
        return mix(colors, WHITE, 0.95 * points.soft(0.32 - np.sqrt(catch), radius))


@dataclass(frozen=True)
class LipAppearance(Appearance):
    """A lip: color, gloss, how dark its outline and the line between the lips are."""

    color: Color
    gloss: float
    line: float
    light: tuple[float, float]
    upper: bool

    def paint(self, points: Points) -> Array:
        """Paint one lip."""
        mouth = points.shape.mouth
        p, w, envelope = mouth.local(points.u, points.v, points.shape.head.turn)
        thick = mouth.upper if self.upper else mouth.lower
        inner = (-0.35 if self.upper else 0.65) * mouth.gap * envelope
        depth = np.abs(w - inner) / thick  # 0 where the lips meet, 1 at the outer edge
        light = (0.80 if self.upper else 0.98) + 0.10 * self.light[0] * p + 0.06 * wave(p * 6) * ramp(depth)
        light -= self.line * (bump((depth / 0.45) ** 2) + 0.5 * p * p * p * p)
        colors = flat(self.color, p) * light
        shine = bump(((p - 0.25 * self.light[0]) / 0.5) ** 2 + ((depth - 0.5) / 0.33) ** 2)
        return mix(colors, WHITE, self.gloss * shine)


@dataclass(frozen=True)
class MouthAppearance(Appearance):
    """Inside of the mouth: colors of teeth, tongue and cavity; how far the teeth reach down."""

    teeth: Color
    tongue: Color
    cavity: Color
    reach: float

    def paint(self, points: Points) -> Array:
        """Return the colors of teeth and tongue."""
        mouth = points.shape.mouth
        p, w, envelope = mouth.local(points.u, points.v, points.shape.head.turn)
        depth = w / max(mouth.gap, 0.01) + 0.35 * envelope  # 0 at the upper lip, up to 1 at the lower
        tongue = bump((p / 0.75) ** 2 + ((depth - 1.0) / 0.4) ** 2)
        colors = mix(self.cavity, self.tongue, tongue)
        row = points.soft(self.reach * (1 - 0.6 * p * p) - depth, max(mouth.gap, 0.01))
        teeth = mix(self.teeth, self.cavity, 0.45 * p * p + 0.10 + 0.10 * wave(p * 4))
        return mix(colors, teeth, row)


@dataclass(frozen=True)
class HairAppearance(Appearance):
    """Hair: colors of roots and tips, streaks, fineness and contrast of the strands, waves, curls, gloss.

    Strands run from the crown outwards for every haircut, so that the appearance does not depend on the
    shape.
    """

    color: Color
    tips: Color
    streaks: float
    fineness: float
    strength: float
    waviness: float
    curl: float
    gloss: float
    phase: float
    light: tuple[float, float]

    def paint(self, points: Points) -> Array:
        """Return the colors of the hair."""
        hair, head = points.shape.hair, points.shape.head
        du, dv = points.u - hair.parting, points.v + head.top + 0.5 * hair.height
        radius = np.sqrt(du * du + dv * dv)
        turn = du / (np.abs(du) + np.abs(dv) + 1e-6)
        turn = np.where(dv < 0, np.where(du < 0, -2.0, 2.0) - turn, turn)
        bent = turn * self.fineness + self.waviness * wave(radius * 1.9 + self.phase) + self.phase
        strands = 0.6 * wave(bent) + 0.4 * wave(bent * 2.3 + 0.4 * wave(radius * 1.3))
        locks = wave(points.u * 4.2 + 0.35 * wave(points.v * 3.1 + self.phase)) * wave(
            points.v * 4.4 + 0.35 * wave(points.u * 2.7)
        )
        strands *= ramp(radius * 4 - 0.2)
        texture = strands + self.curl * (1.3 * locks - strands)
        tips = ramp((radius - 0.65) * 1.1)
        streaked = ramp(0.25 + 0.9 * wave(bent * 0.61 + 0.3)) * self.streaks
        colors = mix(self.color, self.tips, np.maximum(tips, streaked))
        light = 1.0 + self.strength * texture + 0.16 * self.light[0] * points.u / head.width
        inner = ramp((head.width + 0.6 * hair.volume - np.abs(points.u)) * 5) * ramp((points.v + 0.15) * 4)
        light *= 1 - 0.38 * inner - 0.25 * points.shadow
        ring = bump(((radius - 0.40 - 0.03 * strands) / 0.16) ** 2) * (
            1 - 0.5 * np.abs(turn - 0.5 * self.light[0])
        )
        return mix(colors * light, (1.0, 0.96, 0.88), ramp(self.gloss * ring * (0.75 + 0.5 * texture)))
