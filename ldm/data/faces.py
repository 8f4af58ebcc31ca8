"""Faces selected on the command line: a folder, some faces of a folder, or a single file."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ldm.data.datasets.folders import PHOTO_SUFFIXES, FolderError, Pair, files_by_name, pair_by_name
from ldm.data.datasets.paired_images import load_pair
from ldm.data.images import ImageError
from ldm.data.labels import LabelSet

NEXT = "next"  # style source: the next face in the folder


@dataclass(frozen=True)
class Face:
    """A photo (3, H, W) in [-1, 1] with its label map (H, W), uint8."""

    name: str
    image: Tensor
    labels: Tensor


class FaceFiles:
    """Lazily loaded faces; unusable files are recorded and skipped.

    Attributes:
        pairs: the faces to iterate over.
        folder: all faces that may be named, those of the folder.
        problems: one message for each skipped face.
    """

    def __init__(
        self, pairs: Sequence[Pair], label_set: LabelSet, size: tuple[int, int], folder: Sequence[Pair] = ()
    ) -> None:
        """Take the faces to iterate over, and all faces of the folder, which can be used as style sources."""
        self.pairs = list(pairs)
        self.label_set, self.size = label_set, size
        self.problems: list[str] = []
        self.folder = list(folder or pairs)
        self._by_name = {pair.name: pair for pair in self.folder}

    @classmethod
    def in_folder(
        cls, folder: Path, label_set: LabelSet, size: tuple[int, int], names: str | None = None
    ) -> "FaceFiles":
        """Find images/NAME.jpg and labels/NAME.png; `names` such as "900-999,1003" selects some.

        Raises:
            FolderError: a folder is missing, an unpaired file, or an unknown name.
        """
        images = files_by_name(folder / "images", PHOTO_SUFFIXES)
        everything = pair_by_name(images, files_by_name(folder / "labels", (".png",)))
        return cls(chosen(everything, names) if names else everything, label_set, size, everything)

    @classmethod
    def single(cls, image: Path, mask: Path, label_set: LabelSet, size: tuple[int, int]) -> "FaceFiles":
        """Take one photo and its label map."""
        return cls([Pair(image.stem, image, mask)], label_set, size)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Face]:
        for pair in self.pairs:
            try:
                yield self.load(pair)
            except ImageError as error:
                if str(error) not in self.problems:
                    self.problems.append(str(error))

    def load(self, pair: Pair) -> Face:
        """Load a face; raise ImageError for unusable files."""
        loaded = load_pair(pair, self.label_set, self.size)
        return Face(pair.name, loaded["image"], loaded["labels"])

    def other(self, other: str, name: str, option: str, mask: Path | None = None) -> Face:
        """Return the face that provides the style or shape for `name`.

        Args:
            other: name in the folder, "next" for the face after `name`, or an image path with `mask`.
            name: the edited face.
            option: command-line option, for errors.
            mask: label map of the image.

        Raises:
            FolderError: unknown face. ImageError: unusable files.
        """
        if other == NEXT:
            return self._neighbor(name, option)
        if mask is not None:
            if other in self._by_name:
                raise FolderError(
                    f"{option} {other} is a face of the folder and has a label map; remove --style-mask"
                )
            return self.load(Pair(Path(other).stem, Path(other), mask))
        if other in self._by_name:
            return self.load(self._by_name[other])
        more = {
            "--style": ", or an image path with --style-mask",
            "--shape": ", or a PNG of region indices",
        }
        raise FolderError(
            f"{option} {other}: no face of that name in the folder; use one of its names, or `{NEXT}`"
            f"{more.get(option, '')}"
        )

    def _neighbor(self, name: str, option: str) -> Face:
        """Return the next usable face in the folder."""
        names = list(self._by_name)
        place = names.index(name)
        for other in names[place + 1 :] + names[:place]:
            try:
                return self.load(self._by_name[other])
            except ImageError as error:
                if str(error) not in self.problems:
                    self.problems.append(str(error))
        raise FolderError(f"{option} {NEXT}: {name} is the only usable face; name another")


def chosen(pairs: Sequence[Pair], names: str) -> list[Pair]:
    """Return the pairs selected by a list such as "7,900-999", in order.

    Raises:
        FolderError: a name or range has no face.
    """
    by_name = {pair.name: pair for pair in pairs}
    picked: list[Pair] = []
    for part in filter(None, (word.strip() for word in names.split(","))):
        ends = re.fullmatch(r"(\d+)-(\d+)", part)
        if part in by_name:
            picked.append(by_name[part])
        elif ends:
            low, high = int(ends[1]), int(ends[2])
            found = [pair for pair in pairs if pair.name.isdecimal() and low <= int(pair.name) <= high]
            if not found:
                raise FolderError(f"--names {part}: the folder has no face in that range")
            picked += found
        elif len(same := [pair for pair in pairs if _same_number(pair.name, part)]) == 1:
            picked += same
        else:
            raise FolderError(
                f"--names {part}: the folder has no face of that name; it has {pairs[0].name} .. {pairs[-1].name}"
            )
    return picked


def _same_number(name: str, text: str) -> bool:
    """Return whether two names are one number with other leading zeros, such as 000007 and 7."""
    return name.isdecimal() and text.isdecimal() and name.lstrip("0") == text.lstrip("0")
