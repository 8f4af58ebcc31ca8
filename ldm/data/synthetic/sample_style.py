"""Draws how a face looks, from a seed; never looks at the shape."""

from collections.abc import Iterable
from dataclasses import dataclass

from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.synthetic.accessories import (
    PATTERNS,
    BackgroundLook,
    ClothLook,
    EarringLook,
    GlassesLook,
    HatLook,
    NecklaceLook,
)
from ldm.data.synthetic.appearance import (
    BrowLook,
    EarLook,
    EyeLook,
    HairLook,
    LipLook,
    MouthLook,
    NeckLook,
    NoseLook,
    SkinLook,
)
from ldm.data.synthetic.points import Look
from ldm.data.synthetic.rng import STYLE_STREAM, Colour, Draws, blend_colours

SKIN_TONES: tuple[Colour, ...] = (
    (1.00, 0.89, 0.82),
    (0.97, 0.81, 0.70),
    (0.90, 0.70, 0.56),
    (0.78, 0.57, 0.42),
    (0.62, 0.43, 0.31),
    (0.46, 0.31, 0.22),
    (0.34, 0.23, 0.17),
)
HAIR_COLOURS: tuple[Colour, ...] = (
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
IRISES: tuple[Colour, ...] = (
    (0.24, 0.13, 0.07),
    (0.46, 0.27, 0.10),
    (0.45, 0.47, 0.18),
    (0.20, 0.50, 0.30),
    (0.20, 0.52, 0.62),
    (0.22, 0.42, 0.80),
    (0.52, 0.58, 0.64),
)
LIPS: tuple[Colour, ...] = (
    (0.85, 0.55, 0.48),
    (0.80, 0.38, 0.38),
    (0.75, 0.12, 0.16),
    (0.84, 0.22, 0.46),
    (0.48, 0.10, 0.26),
    (0.45, 0.24, 0.18),
)
METALS: tuple[Colour, ...] = ((0.93, 0.72, 0.26), (0.85, 0.85, 0.88), (0.80, 0.50, 0.36), (0.45, 0.45, 0.50))
Light = tuple[float, float]


@dataclass(frozen=True)
class FaceStyle:
    """How each region of a face looks: `looks` holds one entry per region, in CelebAMask-HQ's order.

    A region that a shape lacks has a look all the same, so that every style fits every shape.
    """

    looks: tuple[Look, ...]

    def swap(self, other: "FaceStyle", regions: Iterable[str]) -> "FaceStyle":
        """Return this style with the looks of `regions` taken from `other`.

        Raises:
            ValueError: a name is not a region of CelebAMask-HQ.
        """
        taken = set(CELEBAMASK_HQ.indices(regions))
        pairs = enumerate(zip(self.looks, other.looks, strict=True))
        return FaceStyle(tuple(theirs if k in taken else ours for k, (ours, theirs) in pairs))


def draw_style(seed: int, index: int) -> FaceStyle:
    """Draw the style of face `index` of the series `seed`.

    One person's regions go together (skin and ears, hair and brows, both eyes, one light), yet each look stands alone.

    Raises:
        ValueError: `seed` or `index` is negative.
    """
    draws = Draws(seed, index, STYLE_STREAM)
    light = (draws.between(-1.0, 1.0), draws.between(-1.0, 0.1))
    looks: dict[str, Look] = {"background": _draw_background(draws)}
    looks |= _draw_skin(draws, light)
    looks |= _draw_hair(draws, light)
    looks |= _draw_eyes(draws)
    looks |= _draw_mouth(draws, light)
    looks |= _draw_clothes(draws, light)
    looks |= _draw_jewellery(draws)
    return FaceStyle(tuple(looks[region] for region in CELEBAMASK_HQ.regions))


def _draw_background(draws: Draws) -> Look:
    """Draw a plain, woven or out-of-focus background."""
    near = draws.hue(draws.between(0.05, 0.6), draws.between(0.2, 0.95))
    far = blend_colours(
        near, draws.hue(draws.between(0.05, 0.7), draws.between(0.1, 1.0)), draws.between(0.3, 1.0)
    )
    direction = (draws.between(-1, 1), draws.between(-1, 1))
    kind = draws.choose(PATTERNS, (60, 8, 8, 10, 7, 7))
    period, strength = draws.between(0.25, 0.6), draws.between(0.08, 0.35)
    count = draws.choose((0, 3, 6), (60, 15, 25))
    lights = tuple(
        (
            draws.between(-1, 1),
            draws.between(-1, 0.6),
            draws.between(0.10, 0.28),
            blend_colours(far, draws.hue(draws.between(0.1, 0.5), 1.0), draws.between(0.3, 0.8)),
        )
        for _ in range(count)
    )
    return BackgroundLook(near, far, direction, kind, period, strength, lights)


def _draw_skin(draws: Draws, light: Light) -> dict[str, Look]:
    """Draw one complexion, for face, nose, ears and neck."""
    tone = draws.colour(SKIN_TONES, 0.025)
    blush, gloss = draws.between(0.0, 0.45), draws.between(0.02, 0.28)
    freckles = draws.between(0.2, 0.5) if draws.chance(0.14) else 0.0
    stubble = draws.between(0.12, 0.45) if draws.chance(0.18) else 0.0
    shadow = draws.hue(draws.between(0.3, 0.8), draws.between(0.3, 0.8))
    strength = draws.between(0.25, 0.75) if draws.chance(0.35) else 0.0
    shared = (tone, light, blush, gloss)
    skin = SkinLook(*shared, freckles, stubble, shadow, strength)
    ear = EarLook(*shared)
    return {"skin": skin, "nose": NoseLook(*shared), "neck": NeckLook(*shared), "l_ear": ear, "r_ear": ear}


def _draw_hair(draws: Draws, light: Light) -> dict[str, Look]:
    """Draw hair, natural or dyed, and brows that are near its colour."""
    natural = draws.colour(HAIR_COLOURS)
    dyed = draws.hue(draws.between(0.55, 0.85), draws.between(0.45, 0.95))
    colour = dyed if draws.chance(0.14) else natural
    other = draws.colour(HAIR_COLOURS) if draws.chance(0.7) else draws.hue(0.7, 0.85)
    tips = blend_colours(colour, other, draws.choose((0.1, 0.5, 0.95), (60, 20, 20)))
    streaks = draws.between(0.3, 0.9) if draws.chance(0.3) else 0.0
    look = HairLook(
        colour=colour,
        tips=tips,
        streaks=streaks,
        fineness=draws.between(4.0, 9.0),
        strength=draws.between(0.08, 0.26),
        waviness=draws.choose((0.0, draws.between(0.2, 0.5), draws.between(0.5, 1.0)), (40, 35, 25)),
        curl=draws.choose((0.0, draws.between(0.5, 1.0)), (68, 32)),
        gloss=draws.between(0.0, 0.5),
        phase=draws.unit(),
        light=light,
    )
    brow = BrowLook(
        blend_colours(natural, (0.10, 0.07, 0.06), draws.between(0.35, 0.8)), draws.between(0.0, 0.25)
    )
    return {"hair": look, "l_brow": brow, "r_brow": brow}


def _draw_eyes(draws: Draws) -> dict[str, Look]:
    """Draw a pair of eyes that look the same way, and glasses."""
    iris = draws.colour(IRISES)
    eye = EyeLook(
        iris,
        draws.between(0.9, 1.15),
        (draws.between(-0.22, 0.22), draws.between(-0.15, 0.15)),
        draws.colour(((1.0, 1.0, 1.0), (0.90, 0.92, 0.98), (0.96, 0.88, 0.84)), 0.01),
        draws.between(0.5, 1.0),
    )
    frame = draws.choose(((0.08, 0.07, 0.08), draws.hue(0.75, 0.7), draws.colour(METALS), (0.42, 0.22, 0.10)))
    tint = draws.hue(draws.between(0.1, 0.55), draws.between(0.65, 0.95))
    below = blend_colours(tint, draws.hue(0.3, 0.9), draws.between(0.0, 0.6))
    glasses = GlassesLook(frame, draws.between(0.0, 0.35), tint, below, draws.between(0.25, 0.8))
    return {"l_eye": eye, "r_eye": eye, "eye_g": glasses}


def _draw_mouth(draws: Draws, light: Light) -> dict[str, Look]:
    """Draw both lips in one colour, and what an open mouth shows."""
    colour, gloss, line = draws.colour(LIPS), draws.between(0.0, 0.6), draws.between(0.25, 0.6)
    mouth = MouthLook(
        draws.colour(((1.0, 1.0, 0.98), (0.95, 0.90, 0.78)), 0.01),
        draws.colour(((0.80, 0.36, 0.38), (0.60, 0.22, 0.26))),
        draws.colour(((0.10, 0.02, 0.03), (0.30, 0.08, 0.09)), 0.02),
        draws.between(0.25, 0.75),
    )
    upper, lower = (LipLook(colour, gloss * g, line, light, u) for u, g in ((True, 0.4), (False, 1.0)))
    return {"u_lip": upper, "l_lip": lower, "mouth": mouth}


def _draw_clothes(draws: Draws, light: Light) -> dict[str, Look]:
    """Draw clothes and a hat, each with colours and a pattern of its own."""
    looks: dict[str, Look] = {}
    for region in ("cloth", "hat"):
        colour = draws.hue(draws.between(0.0, 0.85), draws.between(0.15, 0.95))
        second = draws.hue(draws.between(0.0, 0.85), draws.between(0.15, 1.0))
        kind = draws.choose(PATTERNS, (36, 14, 18, 10, 11, 11))
        period = draws.between(0.16, 0.34)
        edge = draws.choose((colour, second, blend_colours(colour, (0.0, 0.0, 0.0), 0.4)))
        relief = draws.between(0.0, 0.12)
        rest = (colour, second, kind, period, edge, relief, light)
        looks[region] = ClothLook(*rest) if region == "cloth" else HatLook(*rest)
    return looks


def _draw_jewellery(draws: Draws) -> dict[str, Look]:
    """Draw earrings and a necklace of one metal."""
    metal, gem = draws.colour(METALS), draws.hue(draws.between(0.3, 0.9), draws.between(0.6, 1.0))
    earring = EarringLook(metal, gem, draws.choose((0.0, 0.9)))
    pendant = draws.hue(draws.between(0.3, 0.9), draws.between(0.5, 1.0))
    return {
        "ear_r": earring,
        "neck_l": NecklaceLook(metal, draws.between(4.0, 9.0), draws.between(0.0, 0.5), pendant),
    }
