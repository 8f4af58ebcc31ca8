"""Which files of the CelebAMask-HQ download become which files of a data set."""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

PHOTOS = "CelebA-HQ-img"
PARTS = "CelebAMask-HQ-mask-anno"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
IDS_PER_FOLDER = 2000
DATASET_SIZE = 30_000
FIRST_TEST_ID = 28_000
CELEBA_SPLITS = (
    ("train", 162_770),
    ("val", 182_637),
    ("test", 202_599),
)  # CelebA's partition: split, end of its range of original indices


class PreparationError(ValueError):
    """The download or the output folder cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """Files of one face.

    Attributes:
        number: number of the face.
        photo: photo in the download.
        parts: folder of the part masks in the download.
        output: folder of the split in the output.
        size: side of the resized photo; None keeps the photo unchanged.
    """

    number: int
    photo: Path
    parts: Path
    output: Path
    size: int | None

    @property
    def image(self) -> Path:
        """Output photo."""
        return self.output / "images" / f"{self.number}.jpg"

    @property
    def labels(self) -> Path:
        """Output label map."""
        return self.output / "labels" / f"{self.number}.png"


def numbers(text: str) -> str:
    """Check a list of numbers and ranges such as 0-999,1003; return it without spaces."""
    text = text.replace(" ", "")
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text) or not named(text):
        raise argparse.ArgumentTypeError(f"expected numbers and ranges such as 0-999,1003, got {text!r}")
    return text


def named(names: str) -> set[int]:
    """Return the numbers in a list such as 0-999,1003."""
    ends = [(first, last or first) for first, _, last in (part.partition("-") for part in names.split(","))]
    return {number for first, last in ends for number in range(int(first), min(int(last), DATASET_SIZE) + 1)}


def plan(download: Path, output: Path, split: str, size: int | None, names: str | None = None) -> list[Job]:
    """Return one job per photo of the download, or per photo in `names`, in numeric order.

    Raises:
        PreparationError: missing folders, photos or mapping.
    """
    root = download if (download / PHOTOS).is_dir() else download / "CelebAMask-HQ"
    for folder in (PHOTOS, PARTS):
        if not (root / folder).is_dir():
            raise PreparationError(
                f"{download} has no folder {folder}; unpack CelebAMask-HQ.zip and pass the folder that it contains"
            )
    photos = {int(path.stem): path for path in (root / PHOTOS).glob("*.jpg") if path.stem.isdecimal()}
    if not photos:
        raise PreparationError(f"{root / PHOTOS} has no N.jpg; unpack the download again")
    if names and (missing := sorted(named(names) - photos.keys())):
        raise PreparationError(
            f"--names {names}: {root / PHOTOS} lacks {len(missing)} of these photos, the first is {missing[0]}.jpg"
        )
    if names:
        photos = {number: photos[number] for number in named(names)}
    elif len(photos) < DATASET_SIZE:
        print(f"note: found {len(photos)} of the {DATASET_SIZE} photos of the dataset", file=sys.stderr)
    splits = celeba_splits(root / MAPPING) if split == "celeba" else {}
    if split == "celeba" and (unknown := sorted(set(photos) - set(splits))):
        raise PreparationError(f"{root / MAPPING} lacks {len(unknown)} photos, the first is {unknown[0]}.jpg")

    def folder_of(number: int) -> str:
        if names:
            return ""
        return splits[number] if splits else "train" if number < FIRST_TEST_ID else "test"

    return [
        Job(number, photo, root / PARTS / str(number // IDS_PER_FOLDER), output / folder_of(number), size)
        for number, photo in sorted(photos.items())
    ]


def celeba_splits(mapping: Path) -> dict[int, str]:
    """Read the split of CelebA of each face: number -> train, val or test.

    Lines are `idx orig_idx orig_file`, such as `0 119613 119614.jpg`: orig_idx counts the files of CelebA
    from 0.

    Raises:
        PreparationError: missing file, or an invalid line.
    """
    if not mapping.is_file():
        raise PreparationError(f"--split celeba requires {mapping}, which is part of the download")
    splits = {}
    for line_number, line in enumerate(mapping.read_text().splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0] == "idx":
            continue
        try:
            number, original, file_number = int(fields[0]), int(fields[1]), int(Path(fields[2]).stem)
            splits[number] = next(name for name, end in CELEBA_SPLITS if 0 <= original < end)
        except (ValueError, IndexError, StopIteration):
            original = file_number = 0
        if original + 1 != file_number:
            raise PreparationError(
                f"{mapping}, line {line_number}: expected a line such as '0 119613 119614.jpg', got {line!r}"
            )
    return splits
