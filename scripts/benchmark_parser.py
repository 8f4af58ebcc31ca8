"""Measure a face parser on drawn label maps: upright, rotated and small faces, and the time a photo.

  python scripts/benchmark_parser.py data/celebamask-hq-mini --first 900 --last 999

FOLDER has images/N.jpg and labels/N.png. Rotated and small faces are crops in which edge pixels of the photo
are repeated around it; only pixels of the photo are scored. mIoU is the mean over the regions that the drawn
label maps have, with pixels summed over all photos (docs/evaluation.md). The last column first swaps left and
right in drawn label maps that have them exchanged.
"""

from __future__ import annotations

import argparse
import cmath
import math
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

import torch
from torch import Tensor

from ldm.arguments import path_argument
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.locate import FACE_PARSER
from ldm.data.datasets.celebamask import CelebAMaskHQ
from ldm.data.labels import UNLABELED, LabelSet
from ldm.metrics.overlap import Overlap, confusion, overlap
from ldm.parsing.alignment import Crop
from ldm.parsing.face_parser import FaceParser
from scripts.benchmarking import finish, processor

REGIONS = ("hair", "skin")  # whose IoU has a column
HEADER = ("faces", "mIoU", "of upright", "pixel accuracy", *REGIONS, "mIoU, sides repaired")


class View(NamedTuple):
    """A crop around the photo's center: a rotated face, or one that is smaller than in the photo."""

    name: str
    degrees: float = 0.0
    scale: float = 1.0

    def crop(self, side: int) -> Crop:
        """Return the crop of a photo with `side` x `side` pixels."""
        center = complex(side, side) / 2
        return Crop(center, side / 2 / self.scale * cmath.exp(1j * math.radians(self.degrees)))


VIEWS = (
    View("upright"),
    View("rotated by 30 degrees", degrees=30),
    View("rotated by -30 degrees", degrees=-30),
    View("half the scale", scale=1 / 2),
    View("a quarter of the scale", scale=1 / 4),
)


class Counts:
    """Confusion matrices of one view, and the seconds of each photo."""

    def __init__(self, label_set: LabelSet) -> None:
        self.label_set, self.seconds = label_set, list[float]()
        R = len(label_set)
        self.drawn, self.repaired = torch.zeros(2, R, R + 1, dtype=torch.int64)

    def add(self, found: Tensor, drawn: Tensor, repaired: Tensor) -> None:
        """Add a label map (H, W) of the parser, and the truth as drawn and with its sides repaired."""
        self.drawn += confusion(found, drawn, len(self.label_set))
        self.repaired += confusion(found, repaired, len(self.label_set))

    def row(self, name: str, upright: Overlap) -> str:
        """Return a row of the table."""
        scores = overlap(self.drawn)
        regions = [scores.iou[i] for i in self.label_set.indices(REGIONS)]
        ratio = scores.miou / upright.miou if upright.miou else math.nan
        values = (scores.miou, ratio, scores.pixel_accuracy, *regions)
        return _cells(name, *(f"{value:.3f}" for value in (*values, overlap(self.repaired).miou)))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    try:
        parser = FaceParser.from_pretrained(options.parser, device=options.device)
        faces = CelebAMaskHQ(options.size, str(options.folder), first=options.first, last=options.last)
    except (CheckpointError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.input_side:
        parser.size = options.input_side, options.input_side
    counts = measure(parser, faces)
    upright = overlap(counts[VIEWS[0]].drawn)
    print(_cells(*HEADER), _cells("---", *("---:" for _ in HEADER[1:])), sep="\n")
    for view, found in counts.items():
        print(found.row(view.name, upright))
    H, W = parser.size
    median = statistics.median(counts[VIEWS[0]].seconds)
    device = "" if parser.device.type == "cpu" else f" and {parser.device}"
    print(
        f"\n{len(faces)} faces at {options.size}x{options.size}, input of the network {H}x{W}; {median:.3f} s a photo "
        f"(median), {torch.get_num_threads()} threads of {processor()}{device}"
    )
    return 0


def measure(parser: FaceParser, faces: CelebAMaskHQ) -> dict[View, Counts]:
    """Parse all faces in each view; count pixels that come from the photo."""
    counts = {view: Counts(parser.label_set) for view in VIEWS}
    for i in range(len(faces)):
        image, drawn = faces[i]["image"], faces[i]["labels"]
        truth = torch.stack([drawn, parser.label_set.repair_sides(drawn)])  # (2, H, W)
        for view, found in counts.items():
            crop, upright = view.crop(len(drawn)), view == VIEWS[0]
            seen = image if upright else crop.cut(image, (len(drawn), len(drawn)))  # (3, H, W)
            began = time.perf_counter()
            labels = parser.parse(seen)
            finish(parser.device)
            found.seconds.append(time.perf_counter() - began)
            found.add(labels, *cut_labels(truth, crop))
    return counts


def cut_labels(labels: Tensor, crop: Crop) -> Tensor:
    """Return the crop of label maps (..., S, S), same size, by nearest neighbor; outside the photo, 255."""
    side = labels.shape[-1]
    centers = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    places = crop.center + crop.axis * torch.complex(x, y)  # (S, S)
    column, row = places.real.floor().long(), places.imag.floor().long()
    inside = (column.clamp(0, side - 1) == column) & (row.clamp(0, side - 1) == row)
    found = labels[..., row.clamp(0, side - 1), column.clamp(0, side - 1)]
    return torch.where(inside, found, torch.full_like(found, UNLABELED))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=path_argument, help="folder with images/ and labels/")
    parser.add_argument("--first", type=int, help="lowest number of a face (default: all)")
    parser.add_argument("--last", type=int, help="highest number of a face (default: all)")
    parser.add_argument(
        "--parser", type=Path, default=FACE_PARSER, help="face parser (default: the bundled one)"
    )
    parser.add_argument("--size", type=int, default=512, help="side of photos and label maps (512)")
    parser.add_argument(
        "--input-side", type=_input_side, help="side of the network's input (default: its config's)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    return parser


def _input_side(text: str) -> int:
    side = int(text)
    if side < 32 or side % 32:
        raise argparse.ArgumentTypeError(f"must be divisible by 32, got {text}")
    return side


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
