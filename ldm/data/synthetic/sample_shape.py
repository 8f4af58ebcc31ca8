"""Random face shapes from a seed, independent of the style."""

from ldm.data.synthetic.rng import SHAPE_STREAM, FaceRNG
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
# Haircut -> (weight in percent, ranges of volume, extra height, length and flare).
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
    """Sample the shape of face `index` of the series `seed`.

    Raises:
        ValueError: `seed` or `index` is negative.
    """
    rng = FaceRNG(seed, index, SHAPE_STREAM)
    uniform = rng.uniform
    pose = Pose(uniform(-0.07, 0.07), uniform(-0.03, 0.06), uniform(0.86, 1.01), uniform(-0.075, 0.075))
    head = Head(
        uniform(0.45, 0.545),
        uniform(0.62, 0.69),
        uniform(0.60, 0.70),
        uniform(0.12, 0.42),
        uniform(0.0, 0.65),
        uniform(-0.05, 0.05),
    )
    eyes = Eyes(
        uniform(0.205, 0.245),
        uniform(-0.10, -0.04),
        uniform(0.11, 0.145),
        uniform(0.05, 0.085),
        uniform(-0.02, 0.03),
    )
    return FaceShape(
        pose=pose,
        head=head,
        eyes=eyes,
        brows=_draw_brows(rng, eyes),
        nose=Nose(eyes.v - 0.02, uniform(0.20, 0.275), uniform(0.035, 0.05), uniform(0.09, 0.145)),
        mouth=_draw_mouth(rng),
        hair=_draw_hair(rng, head),
        ears=_draw_ears(rng),
        body=_draw_body(rng, pose, head),
        glasses=_draw_glasses(rng, eyes),
        hat=_draw_hat(rng),
        necklace=_draw_necklace(rng),
    )


def _draw_brows(rng: FaceRNG, eyes: Eyes) -> Brows:
    """Sample brows above the eyes."""
    uniform = rng.uniform
    return Brows(
        eyes.v - eyes.height - uniform(0.065, 0.11),
        uniform(0.12, 0.16),
        uniform(0.020, 0.042),
        uniform(0.005, 0.045),
        uniform(-0.03, 0.03),
    )


def _draw_mouth(rng: FaceRNG) -> Mouth:
    """Sample a mouth; 45 % are open."""
    uniform = rng.uniform
    gap = uniform(0.035, 0.13) if rng.bernoulli(0.45) else 0.0
    return Mouth(
        uniform(0.375, 0.415),
        uniform(0.15, 0.225) + 0.2 * gap,
        uniform(0.042, 0.066),
        uniform(0.045, 0.085),
        gap,
        uniform(-0.02, 0.07) + 0.2 * gap,
        uniform(0.1, 0.4),
    )


def _draw_ears(rng: FaceRNG) -> Ears:
    """Sample ears; a third has earrings."""
    uniform = rng.uniform
    ring = rng.choice(("none", "stud", "hoop", "drop"), (66, 8, 13, 13))
    return Ears(uniform(0.06, 0.09), uniform(0.11, 0.155), uniform(0.0, 0.05), ring, uniform(0.9, 1.25))


def _draw_hair(rng: FaceRNG, head: Head) -> Hair:
    """Sample a kind of haircut, and then its parameters."""
    uniform = rng.uniform
    kind = rng.choice(tuple(HAIRCUTS), tuple(share for share, _ in HAIRCUTS.values()))
    volume, height, length, flare = (uniform(low, high) for low, high in HAIRCUTS[kind][1])
    sides_back = rng.bernoulli(0.3 if kind in ("bob", "long") else 1.0)
    drapes = kind in ("bob", "long", "afro") and not sides_back
    opening = head.width * uniform(0.80, 0.94) if drapes else head.width + uniform(0.03, 0.10)
    has_fringe = rng.bernoulli({"bob": 0.4, "long": 0.3, "short": 0.25}.get(kind, 0.0))
    fringe = uniform(-0.30, -0.22)
    ragged, locks = uniform(0.0, 0.035), uniform(3.0, 8.0)
    return Hair(
        kind=kind,
        volume=volume,
        height=height,
        length=length,
        flare=flare,
        opening=opening,
        hairline=-head.top + uniform(0.13, 0.26),
        parting=uniform(-0.25, 0.25),
        sweep=uniform(-0.3, 0.3),
        fringe=fringe if has_fringe else -9.0,
        ragged=ragged + (0.015 if kind == "afro" else 0.0),
        locks=locks,
        bun=uniform(0.15, 0.24) if kind == "updo" else 0.0,
        front=rng.bernoulli(0.5),
    )


def _draw_body(rng: FaceRNG, pose: Pose, head: Head) -> Body:
    """Sample neck, shoulders and neckline."""
    uniform = rng.uniform
    chin_x, chin_y = pose.to_image(0.0, head.bottom)
    collar = rng.choice(("round", "vee", "high", "wide"), (35, 30, 15, 20))
    neck = pose.scale * head.width * uniform(0.50, 0.72)
    depth = {
        "round": uniform(0.05, 0.14),
        "vee": uniform(0.15, 0.32),
        "high": uniform(0.06, 0.14),
        "wide": uniform(0.06, 0.2),
    }
    opening = neck * uniform(1.7, 2.3) if collar == "wide" else neck * uniform(1.0, 1.25)
    return Body(
        0.6 * chin_x + 0.4 * pose.x,
        neck,
        chin_y + uniform(0.10, 0.20),
        uniform(0.18, 0.5),
        collar,
        depth[collar],
        opening,
    )


def _draw_glasses(rng: FaceRNG, eyes: Eyes) -> Glasses | None:
    """Sample glasses for 15 % of the faces, a third of them dark."""
    wears, dark = rng.bernoulli(0.15), rng.bernoulli(0.35)
    width = min(eyes.spacing - 0.025, eyes.width + rng.uniform(0.03, 0.07))
    height, square = eyes.height + rng.uniform(0.045, 0.085), rng.uniform(0.0, 1.0)
    frame = rng.uniform(0.10, 0.24)
    return Glasses(width, height, square, frame, dark) if wears else None


def _draw_hat(rng: FaceRNG) -> Hat | None:
    """Sample a hat for 18 % of the faces."""
    uniform = rng.uniform
    wears, kind = rng.bernoulli(0.18), rng.choice(("beanie", "brim", "cap"))
    edge, bend, fullness = uniform(-0.42, -0.32), uniform(-0.05, 0.12), uniform(0.05, 0.12)
    height, brim = uniform(0.40, 0.55), uniform(0.30, 0.42)
    return Hat(kind, edge, bend, fullness, height, brim) if wears else None


def _draw_necklace(rng: FaceRNG) -> Necklace | None:
    """Sample a necklace for 26 % of the faces."""
    uniform = rng.uniform
    wears, has_pendant, pendant = rng.bernoulli(0.26), rng.bernoulli(0.5), uniform(0.035, 0.06)
    width, depth, thickness = uniform(0.20, 0.34), uniform(0.12, 0.30), uniform(0.016, 0.028)
    return Necklace(width, depth, thickness, pendant if has_pendant else 0.0) if wears else None
