"""Measure which faces are found: in portraits, in rotated portraits, and in crowds composed of them.

  python scripts/benchmark_faces.py FOLDER --count 48

FOLDER holds portraits of one person each. A crowd is a photo of 24 of them, scaled to equal size of the
detector's box (about brows to chin) and placed on a grid. Prints the share of the faces that are found, and
the false alarms.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from PIL import Image

from ldm.data.images import open_image, read_rgb
from ldm.parsing.detection import SMALLEST, find_candidates
from ldm.parsing.face_parser import FaceParser
from ldm.parsing.photo_faces import find_faces

CROWD, COLUMNS = 24, 6
BOXES = (40, 60, 80, 120)  # sides in pixels
TURNS = (0, 30, -30)  # degrees


@dataclass
class Tally:
    """Faces of several photos: how many there are, are found, and are found where there is none."""

    faces: int = 0
    found: int = 0
    false: int = 0
    seconds: float = 0.0

    def add(self, photo: Image.Image, centers: list[complex], reach: float, parser: FaceParser) -> None:
        """Count the faces of a photo; a face is found if a crop's center lies within `reach` pixels of its own."""
        began = time.perf_counter()
        crops = [face.crop.center for face in find_faces(photo, parser)]
        self.seconds += time.perf_counter() - began
        found = sum(any(abs(crop - center) < reach for crop in crops) for center in centers)
        self.faces, self.found = self.faces + len(centers), self.found + found
        self.false += sum(all(abs(crop - center) >= reach for center in centers) for crop in crops)

    def row(self, name: str, photos: int) -> str:
        """Return a row of the table."""
        share = self.found / max(1, self.faces)
        return f"| {name} | {self.found} of {self.faces} ({share:.0%}) | {self.false} | {self.seconds / photos:.1f} s |"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of portraits")
    parser.add_argument("--count", type=int, default=48, help="portraits, spread over the folder (48)")
    parser.add_argument("--parser", help="face parser (default: the bundled one)")
    options = parser.parse_args(arguments)
    files = sorted(file for file in options.folder.iterdir() if file.is_file())
    if not files:
        parser.error(f"{options.folder} has no files; expected portraits")
    face_parser = (
        FaceParser.from_pretrained(options.parser) if options.parser else FaceParser.from_pretrained()
    )
    portraits = [_portrait(file) for file in files[:: max(1, len(files) // options.count)][: options.count]]
    print("| photos | faces found | false alarms | time a photo |\n| --- | --- | --- | --- |", flush=True)
    for turn in TURNS:
        tally = Tally()
        for portrait in portraits:
            turned = portrait.rotate(turn, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
            tally.add(turned, [complex(*turned.size) / 2], max(turned.size) / 2, face_parser)
        print(tally.row(f"portraits, turned by {turn} degrees" if turn else "portraits", len(portraits)))
    boxed = [(portrait, box) for portrait in portraits if (box := _box(portrait)) is not None]
    for side in BOXES:
        tally, crowds = Tally(), 0
        for start in range(0, len(boxed), CROWD):
            photo, centers = _crowd(boxed[start : start + CROWD], side)
            tally.add(photo, centers, side, face_parser)
            crowds += 1
        print(tally.row(f"crowds, faces of {side} pixels", crowds), flush=True)
    return 0


def _portrait(file: Path) -> Image.Image:
    with open_image(file) as photo:
        return read_rgb(photo)


def _box(portrait: Image.Image) -> tuple[complex, float] | None:
    """Return center and side of the largest candidate, None without one."""
    candidates = find_candidates(portrait, SMALLEST)
    return (candidates[0].center, candidates[0].side) if candidates else None


def _crowd(
    portraits: list[tuple[Image.Image, tuple[complex, float]]], side: int
) -> tuple[Image.Image, list[complex]]:
    """Return a photo of all portraits with boxes of `side` pixels, and the centers of the boxes."""
    scaled, centers = [], []
    for portrait, (center, box) in portraits:
        size = tuple(max(1, round(side / box * length)) for length in portrait.size)
        scaled.append(portrait.resize((size[0], size[1]), Image.Resampling.BICUBIC))
        centers.append(center * side / box)
    width, height = (max(image.size[axis] for image in scaled) for axis in (0, 1))
    photo = Image.new("RGB", (COLUMNS * width, -(-len(scaled) // COLUMNS) * height), (128, 128, 128))
    for number, image in enumerate(scaled):
        corner = number % COLUMNS * width, number // COLUMNS * height
        photo.paste(image, corner)
        centers[number] += complex(*corner)
    return photo, centers


if __name__ == "__main__":
    sys.exit(main())
