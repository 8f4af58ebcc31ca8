"""Regions of each dataset: names, colors, mirror images; and label maps as one-hot masks."""

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.closest_name import by_similarity

UNLABELED = 255  # in a label map: this pixel belongs to no region, its one-hot mask is all zero
Color = tuple[int, int, int]

_LISTED_NAMES = 40  # how many names an error lists: all of every set but ADE20K's


@dataclass(frozen=True)
class LabelSet:
    """The R regions of a dataset, with labels 0..R-1.

    Attributes:
        name: Name of the dataset.
        regions: R region names.
        palette: R colors (red, green, blue), each 0..255.
        mirror: R indices, the region that each one becomes in a horizontal flip.

    Raises:
        ValueError: the three tuples disagree, a name occurs twice, or `mirror` is not its own inverse.
    """

    name: str
    regions: tuple[str, ...]
    palette: tuple[Color, ...]
    mirror: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.regions)
        if not 0 < count <= UNLABELED:
            raise ValueError(f"{self.name}: the number of regions must be in [1, {UNLABELED}], got {count}")
        if len(set(self.regions)) != count:
            raise ValueError(f"{self.name}: a region name occurs twice")
        if len(self.palette) != count or len(self.mirror) != count:
            raise ValueError(
                f"{self.name}: {count} regions, {len(self.palette)} colors, {len(self.mirror)} mirrors"
            )
        if any(not 0 <= m < count or self.mirror[m] != i for i, m in enumerate(self.mirror)):
            raise ValueError(f"{self.name}: mirror must be its own inverse")

    def __len__(self) -> int:
        return len(self.regions)

    def index(self, name: str) -> int:
        """Return the index of the region `name`.

        Raises:
            ValueError: unknown region; the message lists the known ones, closest first.
        """
        if name not in self.regions:
            raise ValueError(
                f"{self.name} has no region {name!r}; did you mean one of: {self._names_nearest_to(name)}?"
            )
        return self.regions.index(name)

    def indices(self, names: Iterable[str]) -> list[int]:
        """Return the indices of several regions, in order.

        Raises:
            ValueError: a name is unknown (as `index`), or `names` is one string instead of a list.
        """
        if isinstance(names, str):
            raise ValueError(f"expected a list of region names, got a string; write [{names!r}]")
        return [self.index(name) for name in names]

    def colorize(self, labels: np.ndarray | Tensor) -> np.ndarray:
        """Paint a label map (H, W) in the palette: uint8 (H, W, 3); unlabeled pixels are black.

        Raises:
            ValueError: the map is not (H, W), not of integers, or holds a label that is out of range.
        """
        array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise ValueError(f"expected integer labels (H, W), got {array.dtype} {array.shape}")
        wrong = (array != UNLABELED) & ((array < 0) | (array >= len(self)))
        if wrong.any():
            raise ValueError(f"label {array[wrong].flat[0]}; {self.name} has labels in [0, {len(self) - 1}]")
        colors = np.zeros((UNLABELED + 1, 3), np.uint8)
        colors[: len(self)] = self.palette
        return colors[array]

    def flip(self, labels: Tensor) -> Tensor:
        """Flip label maps (..., H, W) left to right; left and right regions change their labels."""
        # numpy is faster than torch, which would start its thread pool for every map.
        array = labels.cpu().numpy()
        table = np.arange(UNLABELED + 1, dtype=array.dtype)
        table[: len(self)] = self.mirror
        return torch.from_numpy(table[np.flip(array, -1)]).to(labels.device)

    def repair_sides(self, labels: Tensor) -> Tensor:
        """Swap left and right regions of a label map (H, W) if they are on the wrong sides.

        They are swapped in about 6 % of CelebAMask-HQ: in the first complete pair (eyes, then brows, then
        ears), the region `l_` must be on the right of the image, the person's left.
        """
        array = labels.cpu().numpy()
        for left, right in ((i, m) for i, m in enumerate(self.mirror) if i < m):
            columns = [np.nonzero((array == region).any(0))[0] for region in (left, right)]
            if all(map(len, columns)):
                if columns[0].mean() > columns[1].mean():
                    return labels
                table = np.arange(UNLABELED + 1, dtype=array.dtype)
                table[: len(self)] = self.mirror
                return torch.from_numpy(table[array]).to(labels.device)
        return labels

    def _names_nearest_to(self, name: str) -> str:
        """List the region names, closest to `name` first."""
        ordered = by_similarity(name, self.regions)
        more = len(ordered) - _LISTED_NAMES
        return ", ".join(ordered[:_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")


def one_hot(labels: Tensor, num_regions: int, checked: bool = False) -> Tensor:
    """Convert label maps to one-hot masks.

    Args:
        labels: (B, H, W), any integer type, 0..num_regions-1, or 255 for unlabeled.
        num_regions: R, at most 255.
        checked: the labels passed `check_labels` before, on the host; checking them on a GPU would wait for
            it.

    Returns:
        float32 (B, R, H, W); all R values of an unlabeled pixel are zero.

    Raises:
        ValueError: as `check_labels`, unless `checked`.
    """
    if not checked:
        check_labels(labels, num_regions)
    regions = torch.arange(num_regions, dtype=labels.dtype, device=labels.device)
    return (labels[:, None] == regions[:, None, None]).float()  # (B, R, H, W)


def check_labels(labels: Tensor, num_regions: int) -> None:
    """Check label maps (B, H, W).

    Raises:
        ValueError: wrong shape or type, or a label that is neither below `num_regions` nor 255.
    """
    if not 0 < num_regions <= UNLABELED:
        raise ValueError(
            f"num_regions must be in [1, {UNLABELED}], got {num_regions} ({UNLABELED} means unlabeled)"
        )
    if labels.ndim != 3:
        raise ValueError(f"labels must have shape (B, H, W), got {tuple(labels.shape)}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be integers, one region index per pixel, got {labels.dtype}")
    wrong = (labels != UNLABELED) & ((labels < 0) | (labels >= num_regions))
    if wrong.any():
        found = sorted(set(labels[wrong].tolist()))
        raise ValueError(
            f"labels must be in [0, {num_regions - 1}], or {UNLABELED} for unlabeled, got {found[:5]}"
        )


def _names(listed: str) -> tuple[str, ...]:
    """Split a list of region names at its commas."""
    return tuple(listed.split(", "))


def _mirror(regions: tuple[str, ...], *pairs: tuple[str, str]) -> tuple[int, ...]:
    """Return the mirror table that swaps each pair of names."""
    swaps = dict(pairs) | {right: left for left, right in pairs}
    return tuple(regions.index(swaps.get(region, region)) for region in regions)


def _spread_colors(count: int) -> tuple[Color, ...]:
    """Return `count` distinct colors: golden-ratio hues with three alternating lightnesses."""

    def color(i: int) -> Color:
        red, green, blue = colorsys.hls_to_rgb(
            i * 0.618034 % 1, (0.45, 0.62, 0.78)[i % 3], (0.75, 0.5)[i // 3 % 2]
        )
        return round(255 * red), round(255 * green), round(255 * blue)

    return tuple(color(i) for i in range(count))


_FACE: dict[str, Color] = {  # CelebAMask-HQ's own order; later parts lie on top of earlier ones
    "background": (43, 48, 58),
    "skin": (240, 196, 160),
    "nose": (222, 140, 98),
    "eye_g": (108, 92, 231),
    "l_eye": (31, 119, 220),
    "r_eye": (94, 200, 250),
    "l_brow": (120, 72, 24),
    "r_brow": (176, 124, 48),
    "l_ear": (255, 118, 117),
    "r_ear": (255, 170, 166),
    "mouth": (120, 10, 40),
    "u_lip": (214, 48, 90),
    "l_lip": (245, 100, 150),
    "hair": (92, 58, 46),
    "hat": (0, 184, 148),
    "ear_r": (255, 215, 0),
    "neck_l": (190, 240, 90),
    "neck": (200, 160, 200),
    "cloth": (60, 140, 110),
}
_FACE_REGIONS = tuple(_FACE)
CELEBAMASK_HQ = LabelSet(
    name="CelebAMask-HQ",
    regions=_FACE_REGIONS,
    palette=tuple(_FACE.values()),
    mirror=_mirror(_FACE_REGIONS, ("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear")),
)

_STREET: dict[str, Color] = {  # Cityscapes' label ids 0..33 and its own colors where those are distinct
    "unlabeled": (20, 20, 20),
    "ego vehicle": (40, 30, 30),
    "rectification border": (30, 40, 30),
    "out of roi": (30, 30, 40),
    "static": (50, 50, 40),
    "dynamic": (111, 74, 0),
    "ground": (81, 0, 81),
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "parking": (250, 170, 160),
    "rail track": (230, 150, 140),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (180, 165, 180),
    "bridge": (150, 100, 100),
    "tunnel": (150, 120, 90),
    "pole": (153, 153, 153),
    "polegroup": (170, 170, 160),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "caravan": (0, 0, 90),
    "trailer": (0, 0, 110),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "license plate": (230, 230, 250),  # id -1; as the last region, which SPADE calls "unknown"
}
_STREET_REGIONS = tuple(_STREET)
CITYSCAPES = LabelSet("Cityscapes", _STREET_REGIONS, tuple(_STREET.values()), _mirror(_STREET_REGIONS))

_STREET_EVALUATED = _names(  # the 19 classes that Cityscapes evaluates, in the order of its train ids
    "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, "
    "person, rider, car, truck, bus, train, motorcycle, bicycle"
)
CITYSCAPES_TRAIN = LabelSet(
    name="Cityscapes (train ids)",
    regions=_STREET_EVALUATED,
    palette=tuple(_STREET[region] for region in _STREET_EVALUATED),
    mirror=_mirror(_STREET_EVALUATED),
)

_SCENE_REGIONS = (
    _names(  # ADE20K's scene parsing classes 1..150, named by the first synonym; "other" (0) last
        "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, "
        "earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, "
        "mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, "
        "base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, "
        "refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway, "
        "river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, "
        "palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, "
        "truck, tower, chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel, "
        "pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, "
        "conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, "
        "bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, "
        "lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, "
        "pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag, other"
    )
)
ADE20K = LabelSet("ADE20K", _SCENE_REGIONS, _spread_colors(len(_SCENE_REGIONS)), _mirror(_SCENE_REGIONS))

_FASHION_REGIONS = _names(  # DeepFashion-MultiModal's parsing classes 0..23
    "background, top, outer, skirt, dress, pants, leggings, headwear, eyeglass, neckwear, belt, footwear, "
    "bag, hair, face, skin, ring, wrist wearing, socks, gloves, necklace, rompers, earrings, tie"
)
DEEPFASHION = LabelSet(
    "DeepFashion", _FASHION_REGIONS, _spread_colors(len(_FASHION_REGIONS)), _mirror(_FASHION_REGIONS)
)

LABEL_SETS = {s.name: s for s in (CELEBAMASK_HQ, CITYSCAPES, CITYSCAPES_TRAIN, ADE20K, DEEPFASHION)}
