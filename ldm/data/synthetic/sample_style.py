"""Random face styles from a seed, independent of the shape."""

from collections.abc import Iterable
from dataclasses import dataclass

from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.synthetic.accessories import (
    PATTERNS,
    BackgroundAppearance,
    ClothAppearance,
    EarringAppearance,
    GlassesAppearance,
    HatAppearance,
    NecklaceAppearance,
)
from ldm.data.synthetic.appearance import (
    BrowAppearance,
    EarAppearance,
    EyeAppearance,
    HairAppearance,
    LipAppearance,
    MouthAppearance,
    NeckAppearance,
    NoseAppearance,
    SkinAppearance,
)
from ldm.data.synthetic.points import Appearance
from ldm.data.synthetic.rng import STYLE_STREAM, Color, FaceRNG, blend_colors

SKIN_TONES: tuple[Color, ...] = (
    (1.00, 0.89, 0.82),
    (0.97, 0.81, 0.70),
    (0.90, 0.70, 0.56),
    (0.78, 0.57, 0.42),
    (0.62, 0.43, 0.31),
    (0.46, 0.31, 0.22),
    (0.34, 0.23, 0.17),
)
HAIR_COLORS: tuple[Color, ...] = (
    (0.09, 0.08, 0.10),
    (0.17, 0.12, 0.10),
    (0.29, 0.18, 0.11),
    (0.44, 0.28, 0.16),
    (0.55, 0.22, 0.09),
    (0.72, 0.36, 0.12),
    (0.80, 0.60, 0.30),
    (0.92, 0.80, 0.55),
    (0.80, 0.79, 0.78),
    (0.50, 0.50, 0.52),
)
IRISES: tuple[Color, ...] = (
    (0.24, 0.13, 0.07),
    (0.46, 0.27, 0.10),
    (0.45, 0.47, 0.18),
    (0.20, 0.50, 0.30),
    (0.20, 0.52, 0.62),
    (0.22, 0.42, 0.80),
    (0.52, 0.58, 0.64),
)
LIPS: tuple[Color, ...] = (
    (0.85, 0.55, 0.48),
    (0.80, 0.38, 0.38),
    (0.75, 0.12, 0.16),
    (0.84, 0.22, 0.46),
    (0.48, 0.10, 0.26),
    (0.45, 0.24, 0.18),
)
METALS: tuple[Color, ...] = ((0.93, 0.72, 0.26), (0.85, 0.85, 0.88), (0.80, 0.50, 0.36), (0.45, 0.45, 0.50))
Light = tuple[float, float]


@dataclass(frozen=True)
class FaceStyle:
    """Style of a face: the appearance of each region, in the order of CelebAMask-HQ.

    All regions have an appearance, also those that a shape lacks, so that every style fits every shape.
    """

    appearances: tuple[Appearance, ...]

    def swap(self, other: "FaceStyle", regions: Iterable[str]) -> "FaceStyle":
        """Return this style with the appearance of `regions` taken from `other`.

        Raises:
            ValueError: unknown region.
        """
        taken = set(CELEBAMASK_HQ.indices(regions))
        pairs = enumerate(zip(self.appearances, other.appearances, strict=True))
        return FaceStyle(tuple(new if k in taken else own for k, (own, new) in pairs))


def draw_style(seed: int, index: int) -> FaceStyle:
    """Sample the style of face `index` of the series `seed`.

    Regions of a face are correlated: skin and ears, hair and brows, both eyes, the light.

    Raises:
        ValueError: `seed` or `index` is negative.
    """
    rng = FaceRNG(seed, index, STYLE_STREAM)
    light = (rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 0.1))
    appearances: dict[str, Appearance] = {"background": _draw_background(rng)}
    appearances |= _draw_skin(rng, light)
    appearances |= _draw_hair(rng, light)
    appearances |= _draw_eyes(rng)
    appearances |= _draw_mouth(rng, light)
    appearances |= _draw_clothes(rng, light)
    appearances |= _draw_jewelry(rng)
    return FaceStyle(tuple(appearances[region] for region in CELEBAMASK_HQ.regions))


def _draw_background(rng: FaceRNG) -> Appearance:
    """Sample a plain, patterned or out-of-focus background."""
    near = rng.hue(rng.uniform(0.05, 0.6), rng.uniform(0.2, 0.95))
    far = blend_colors(near, rng.hue(rng.uniform(0.05, 0.7), rng.uniform(0.1, 1.0)), rng.uniform(0.3, 1.0))
    direction = (rng.uniform(-1, 1), rng.uniform(-1, 1))
    kind = rng.choice(PATTERNS, (60, 8, 8, 10, 7, 7))
    period, strength = rng.uniform(0.25, 0.6), rng.uniform(0.08, 0.35)
    count = rng.choice((0, 3, 6), (60, 15, 25))
    lights = tuple(
        (
            rng.uniform(-1, 1),
            rng.uniform(-1, 0.6),
            rng.uniform(0.10, 0.28),
            blend_colors(far, rng.hue(rng.uniform(0.1, 0.5), 1.0), rng.uniform(0.3, 0.8)),
        )
        for _ in range(count)
    )
    return BackgroundAppearance(near, far, direction, kind, period, strength, lights)


def _draw_skin(rng: FaceRNG, light: Light) -> dict[str, Appearance]:
    """Sample one complexion for face, nose, ears and neck."""
    tone = rng.color(SKIN_TONES, 0.025)
    blush, gloss = rng.uniform(0.0, 0.45), rng.uniform(0.02, 0.28)
    freckles = rng.uniform(0.2, 0.5) if rng.bernoulli(0.14) else 0.0
    stubble = rng.uniform(0.12, 0.45) if rng.bernoulli(0.18) else 0.0
    shadow = rng.hue(rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8))
    strength = rng.uniform(0.25, 0.75) if rng.bernoulli(0.35) else 0.0
    shared = (tone, light, blush, gloss)
    skin = SkinAppearance(*shared, freckles, stubble, shadow, strength)
    ear = EarAppearance(*shared)
    return {
        "skin": skin,
        "nose": NoseAppearance(*shared),
        "neck": NeckAppearance(*shared),
        "l_ear": ear,
        "r_ear": ear,
    }


def _draw_hair(rng: FaceRNG, light: Light) -> dict[str, Appearance]:
    """Sample natural or dyed hair, and brows of a similar color."""
    natural = rng.color(HAIR_COLORS)
    dyed = rng.hue(rng.uniform(0.55, 0.85), rng.uniform(0.45, 0.95))
    color = dyed if rng.bernoulli(0.14) else natural
    other = rng.color(HAIR_COLORS) if rng.bernoulli(0.7) else rng.hue(0.7, 0.85)
    tips = blend_colors(color, other, rng.choice((0.1, 0.5, 0.95), (60, 20, 20)))
    streaks = rng.uniform(0.3, 0.9) if rng.bernoulli(0.3) else 0.0
    hair = HairAppearance(
        color=color,
        tips=tips,
        streaks=streaks,
        fineness=rng.uniform(4.0, 9.0),
        strength=rng.uniform(0.08, 0.26),
        waviness=rng.choice((0.0, rng.uniform(0.2, 0.5), rng.uniform(0.5, 1.0)), (40, 35, 25)),
        curl=rng.choice((0.0, rng.uniform(0.5, 1.0)), (68, 32)),
        gloss=rng.uniform(0.0, 0.5),
        phase=rng.random(),
        light=light,
    )
    brow = BrowAppearance(
        blend_colors(natural, (0.10, 0.07, 0.06), rng.uniform(0.35, 0.8)), rng.uniform(0.0, 0.25)
    )
    return {"hair": hair, "l_brow": brow, "r_brow": brow}


def _draw_eyes(rng: FaceRNG) -> dict[str, Appearance]:
    """Sample a pair of eyes with a common gaze, and glasses."""
    iris = rng.color(IRISES)
    eye = EyeAppearance(
        iris,
        rng.uniform(0.9, 1.15),
        (rng.uniform(-0.22, 0.22), rng.uniform(-0.15, 0.15)),
        rng.color(((1.0, 1.0, 1.0), (0.90, 0.92, 0.98), (0.96, 0.88, 0.84)), 0.01),
        rng.uniform(0.5, 1.0),
    )
    frame = rng.choice(((0.08, 0.07, 0.08), rng.hue(0.75, 0.7), rng.color(METALS), (0.42, 0.22, 0.10)))
    tint = rng.hue(rng.uniform(0.1, 0.55), rng.uniform(0.65, 0.95))
    below = blend_colors(tint, rng.hue(0.3, 0.9), rng.uniform(0.0, 0.6))
    glasses = GlassesAppearance(frame, rng.uniform(0.0, 0.35), tint, below, rng.uniform(0.25, 0.8))
    return {"l_eye": eye, "r_eye": eye, "eye_g": glasses}


def _draw_mouth(rng: FaceRNG, light: Light) -> dict[str, Appearance]:
    """Sample the lips, of one color, and the inside of the mouth."""
    color, gloss, line = rng.color(LIPS), rng.uniform(0.0, 0.6), rng.uniform(0.25, 0.6)
    mouth = MouthAppearance(
        rng.color(((1.0, 1.0, 0.98), (0.95, 0.90, 0.78)), 0.01),
        rng.color(((0.80, 0.36, 0.38), (0.60, 0.22, 0.26))),
        rng.color(((0.10, 0.02, 0.03), (0.30, 0.08, 0.09)), 0.02),
        rng.uniform(0.25, 0.75),
    )
    upper, lower = (LipAppearance(color, gloss * g, line, light, u) for u, g in ((True, 0.4), (False, 1.0)))
    return {"u_lip": upper, "l_lip": lower, "mouth": mouth}


def _draw_clothes(rng: FaceRNG, light: Light) -> dict[str, Appearance]:
    """Sample clothes and a hat, each with its own colors and pattern."""
    appearances: dict[str, Appearance] = {}
    for region in ("cloth", "hat"):
        color = rng.hue(rng.uniform(0.0, 0.85), rng.uniform(0.15, 0.95))
        second = rng.hue(rng.uniform(0.0, 0.85), rng.uniform(0.15, 1.0))
        kind = rng.choice(PATTERNS, (36, 14, 18, 10, 11, 11))
        period = rng.uniform(0.16, 0.34)
        edge = rng.choice((color, second, blend_colors(color, (0.0, 0.0, 0.0), 0.4)))
        relief = rng.uniform(0.0, 0.12)
        rest = (color, second, kind, period, edge, relief, light)
        appearances[region] = ClothAppearance(*rest) if region == "cloth" else HatAppearance(*rest)
    return appearances


def _draw_jewelry(rng: FaceRNG) -> dict[str, Appearance]:
    """Sample earrings and a necklace of the same metal."""
    metal, gem = rng.color(METALS), rng.hue(rng.uniform(0.3, 0.9), rng.uniform(0.6, 1.0))
    earring = EarringAppearance(metal, gem, rng.choice((0.0, 0.9)))
    pendant = rng.hue(rng.uniform(0.3, 0.9), rng.uniform(0.5, 1.0))
    return {
        "ear_r": earring,
        "neck_l": NecklaceAppearance(metal, rng.uniform(4.0, 9.0), rng.uniform(0.0, 0.5), pendant),
    }
