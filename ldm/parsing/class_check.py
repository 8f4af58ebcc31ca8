"""Check the class names of a face parser from elsewhere on a face whose label map is known.

Copies of the same networks circulate with the names of left and right swapped, or with the names of another
order of the classes. Both load without an error and give wrong label maps.
"""

from torch import Tensor

from ldm.bundle import ROOT
from ldm.checkpoints.errors import CheckpointError
from ldm.data.images import load_image
from ldm.data.label_maps import load_labels
from ldm.data.labels import CELEBAMASK_HQ
from ldm.metrics.overlap import confusion

REFERENCE = ROOT / "assets" / "photos" / "aligned"
SIDE = 512  # of the image that is parsed
PAIRS = (("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear"))
MIN_SHARE = 0.0005  # of the image: fewer pixels are noise
MIN_AREA = 0.002  # of the image: regions whose names are checked; an eye, the smallest, has 0.0024
SAME, OTHER = 0.4, 0.1  # IoU from which a class is another region, and below which it is not its own


def reference_face() -> tuple[Tensor, Tensor]:
    """Return the image (3, H, W) in [-1, 1] and its label map (H, W) of CELEBAMASK_HQ."""
    size = (SIDE, SIDE)
    return (
        load_image(REFERENCE / "images" / "astronaut.jpg", size),
        load_labels(REFERENCE / "labels" / "astronaut.png", CELEBAMASK_HQ, size),
    )


def swapped_sides(labels: Tensor) -> list[tuple[str, str]]:
    """Return the pairs of regions whose left and right are swapped in a label map (H, W) of the reference face.

    l_eye, l_brow and l_ear are the person's left, on the right of the image. A pair of which a region was not
    found is assumed to be like the others if these agree.
    """
    order = {pair: _swapped(labels, *pair) for pair in PAIRS}
    known = {found for found in order.values() if found is not None}
    unseen = known == {True}
    return [pair for pair, found in order.items() if (unseen if found is None else found)]


def misnamed(labels: Tensor, truth: Tensor) -> dict[str, str]:
    """Return the misnamed classes: {name of the class: region, or pair, that it actually segments}.

    A class is misnamed if it covers another region of the reference face and not its own. A class that covers
    neither is poor, not misnamed. The other side of a pair counts as its own: `swapped_sides` finds these.

    Args:
        labels: label map (H, W) of the parser.
        truth: label map (H, W) of the reference face.
    """
    regions = CELEBAMASK_HQ.regions
    counts = confusion(labels, truth, len(regions))  # (true region, class)
    areas = [area for area in (*((name,) for name in regions), *PAIRS) if _area(counts, area) >= MIN_AREA]
    found = {}
    for index, name in enumerate(regions):
        if counts[:, index].sum() < MIN_SHARE * labels.numel():
            continue
        pair = next((pair for pair in PAIRS if name in pair), (name,))
        overlap = {area: _iou(counts, area, index) for area in areas}
        own = [overlap.pop(area) for area in areas if set(area) <= set(pair)]
        best = max(overlap, key=overlap.__getitem__)
        if overlap[best] >= SAME and max(own, default=0) < OTHER:
            found[name] = " and ".join(best)
    return found


def check_classes(labels: Tensor, truth: Tensor, name: str) -> list[tuple[str, str]]:
    """Return the pairs of regions to swap.

    Args:
        labels: label map of the reference face by the parser (H, W).
        truth: label map of the reference face (H, W).
        name: of the parser, for the error.

    Raises:
        CheckpointError: a class segments another region than its name says.
    """
    if wrong := misnamed(labels, truth):
        listed = ", ".join(f"'{named}' segments {region}" for named, region in wrong.items())
        raise CheckpointError(
            f"{name}: its class names do not match what the network segments in a reference face: {listed}; correct "
            "id2label in its config.json"
        )
    return swapped_sides(labels)


def _swapped(labels: Tensor, left: str, right: str) -> bool | None:
    """Return whether the person's left lies on the left of the image, None if a region was not found."""
    columns = []
    for index in CELEBAMASK_HQ.indices((left, right)):
        mask = labels == index
        if _mean(mask) < MIN_SHARE:
            return None
        columns.append(float(mask.nonzero()[:, 1].float().mean()))
    return columns[0] < columns[1]


def _mean(mask: Tensor) -> float:
    return float(mask.float().mean())


def _area(counts: Tensor, area: tuple[str, ...]) -> float:
    """Return the share of the true regions `area` in the image."""
    return int(counts[CELEBAMASK_HQ.indices(area)].sum()) / max(1, int(counts.sum()))


def _iou(counts: Tensor, area: tuple[str, ...], index: int) -> float:
    """Return the IoU of the true regions `area` with a class."""
    true, both = counts[CELEBAMASK_HQ.indices(area)], counts[CELEBAMASK_HQ.indices(area), index]
    return int(both.sum()) / max(1, int(true.sum() + counts[:, index].sum() - both.sum()))
