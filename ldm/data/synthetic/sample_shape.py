"""Draws the shape of a face from a seed; never looks at the style."""

from ldm.data.synthetic.rng import SHAPE_STREAM, Draws
from ldm.data.synthetic.shape import (
    Body,
    Brows,
    Ears,
    Eyes,
    FaceShape,
    Glasses,
    Hair,
    Hat,
    Head,
    Mouth,
    Necklace,
    Nose,
    Pose,
)

Range = tuple[float, float]
# Haircut: how many in a hundred, and its ranges of volume, extra height, length, flare.
HAIRCUTS: dict[str, tuple[int, tuple[Range, Range, Range, Range]]] = {
    "bald": (5, ((0.0, 0.0), (0.0, 0.0), (-0.5, -0.5), (0.0, 0.0))),
    "buzz": (8, ((0.015, 0.03), (0.01, 0.04), (-0.10, 0.05), (-0.1, 0.0))),
    "short": (24, ((0.04, 0.10), (0.06, 0.18), (-0.08, 0.14), (-0.15, 0.0))),
    "bob": (20, ((0.09, 0.17), (0.06, 0.14), (0.30, 0.62), (-0.05, 0.15))),
    "long": (27, ((0.09, 0.18), (0.06, 0.14), (0.85, 1.6), (0.0, 0.18))),
    "updo": (9, ((0.03, 0.07), (0.04, 0.10), (-0.05, 0.12), (-0.15, 0.0))),
    "afro": (7, ((0.22, 0.36), (0.22, 0.34), (0.15, 0.42), (-0.6, -0.3))),
}


def draw_shape(seed: int, index: int) -> FaceShape:
    """Draw the shape of face `index` of the series `seed`.

    Raises:
        ValueError: `seed` or `index` is negative.
    """
    draws = Draws(seed, index, SHAPE_STREAM)
    between = draws.between
    pose = Pose(between(-0.07, 0.07), between(-0.03, 0.06), between(0.86, 1.01), between(-0.075, 0.075))
    head = Head(
        between(0.45, 0.545),
        between(0.62, 0.69),
        between(0.60, 0.70),
        between(0.12, 0.42),
        between(0.0, 0.65),
        between(-0.05, 0.05),
    )
    eyes = Eyes(
        between(0.205, 0.245),
        between(-0.10, -0.04),
        between(0.11, 0.145),
        between(0.05, 0.085),
        between(-0.02, 0.03),
    )
    return FaceShape(
        pose=pose,
        head=head,
        eyes=eyes,
        brows=_draw_brows(draws, eyes),
        nose=Nose(eyes.v - 0.02, between(0.20, 0.275), between(0.035, 0.05), between(0.09, 0.145)),
        mouth=_draw_mouth(draws),
        hair=_draw_hair(draws, head),
        ears=_draw_ears(draws),
        body=_draw_body(draws, pose, head),
        glasses=_draw_glasses(draws, eyes),
        hat=_draw_hat(draws),
        necklace=_draw_necklace(draws),
    )


def _draw_brows(draws: Draws, eyes: Eyes) -> Brows:
    """Draw brows that keep clear of the eyes."""
    between = draws.between
    return Brows(
        eyes.v - eyes.height - between(0.065, 0.11),
        between(0.12, 0.16),
        between(0.020, 0.042),
        between(0.005, 0.045),
        between(-0.03, 0.03),
    )


def _draw_mouth(draws: Draws) -> Mouth:
    """Draw a mouth, open in a little less than half of the faces."""
    between = draws.between
    gap = between(0.035, 0.13) if draws.chance(0.45) else 0.0
    return Mouth(
        between(0.375, 0.415),
        between(0.15, 0.225) + 0.2 * gap,
        between(0.042, 0.066),
        between(0.045, 0.085),
        gap,
        between(-0.02, 0.07) + 0.2 * gap,
        between(0.1, 0.4),
    )


def _draw_ears(draws: Draws) -> Ears:
    """Draw ears, a third of them with earrings."""
    between = draws.between
    ring = draws.choose(("none", "stud", "hoop", "drop"), (66, 8, 13, 13))
    return Ears(between(0.06, 0.09), between(0.11, 0.155), between(0.0, 0.05), ring, between(0.9, 1.25))


def _draw_hair(draws: Draws, head: Head) -> Hair:
    """Draw a haircut: its kind first, then numbers within the kind's ranges."""
    between = draws.between
    kind = draws.choose(tuple(HAIRCUTS), tuple(share for share, _ in HAIRCUTS.values()))
    volume, height, length, flare = (between(low, high) for low, high in HAIRCUTS[kind][1])
    sides_back = draws.chance(0.3 if kind in ("bob", "long") else 1.0)
    drapes = kind in ("bob", "long", "afro") and not sides_back
    opening = head.width * between(0.80, 0.94) if drapes else head.width + between(0.03, 0.10)
    has_fringe = draws.chance({"bob": 0.4, "long": 0.3, "short": 0.25}.get(kind, 0.0))
    fringe = between(-0.30, -0.22)
    ragged, locks = between(0.0, 0.035), between(3.0, 8.0)
    return Hair(
        kind=kind,
        volume=volume,
        height=height,
        length=length,
        flare=flare,
        opening=opening,
        hairline=-head.top + between(0.13, 0.26),
        parting=between(-0.25, 0.25),
        sweep=between(-0.3, 0.3),
        fringe=fringe if has_fringe else -9.0,
        ragged=ragged + (0.015 if kind == "afro" else 0.0),
        locks=locks,
        bun=between(0.15, 0.24) if kind == "updo" else 0.0,
        front=draws.chance(0.5),
    )


def _draw_body(draws: Draws, pose: Pose, head: Head) -> Body:
    """Draw neck, shoulders and neckline below the chin."""
    between = draws.between
    chin_x, chin_y = pose.to_picture(0.0, head.bottom)
    collar = draws.choose(("round", "vee", "high", "wide"), (35, 30, 15, 20))
    neck = pose.scale * head.width * between(0.50, 0.72)
    depth = {
        "round": between(0.05, 0.14),
        "vee": between(0.15, 0.32),
        "high": between(0.06, 0.14),
        "wide": between(0.06, 0.2),
    }
    opening = neck * between(1.7, 2.3) if collar == "wide" else neck * between(1.0, 1.25)
    return Body(
        0.6 * chin_x + 0.4 * pose.x,
        neck,
        chin_y + between(0.10, 0.20),
        between(0.18, 0.5),
        collar,
        depth[collar],
        opening,
    )


def _draw_glasses(draws: Draws, eyes: Eyes) -> Glasses | None:
    """Draw glasses for one face in seven, a third of these dark."""
    wears, dark = draws.chance(0.15), draws.chance(0.35)
    width = min(eyes.spacing - 0.025, eyes.width + draws.between(0.03, 0.07))
    height, square = eyes.height + draws.between(0.045, 0.085), draws.between(0.0, 1.0)
    frame = draws.between(0.10, 0.24)
    return Glasses(width, height, square, frame, dark) if wears else None


def _draw_hat(draws: Draws) -> Hat | None:
    """Draw a hat for one face in six."""
    between = draws.between
    wears, kind = draws.chance(0.18), draws.choose(("beanie", "brim", "cap"))
    edge, bend, fullness = between(-0.42, -0.32), between(-0.05, 0.12), between(0.05, 0.12)
    height, brim = between(0.40, 0.55), between(0.30, 0.42)
    return Hat(kind, edge, bend, fullness, height, brim) if wears else None


def _draw_necklace(draws: Draws) -> Necklace | None:
    """Draw a necklace for one face in four."""
    between = draws.between
    wears, has_pendant, pendant = draws.chance(0.26), draws.chance(0.5), between(0.035, 0.06)
    width, depth, thickness = between(0.20, 0.34), between(0.12, 0.30), between(0.016, 0.028)
    return Necklace(width, depth, thickness, pendant if has_pendant else 0.0) if wears else None
