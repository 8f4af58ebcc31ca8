"""Images with label maps in files, as items of one size: base class of the datasets in folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.closest_name import closest_name
from ldm.data.datasets.flips import EpochFlips, FlippedDataset, flip
from ldm.data.datasets.folders import Pair
from ldm.data.images import ImageError, Size, Source, as_size, open_image, read_rgb, to_tensor, upright_size
from ldm.data.label_maps import check_label_format, read_labels
from ldm.data.labels import LabelSet

KEYS = {  # name of an entry in a YAML -> entry of the items
    "image": "image",
    "images": "image",
    "labels": "labels",
    "label": "labels",
    "segmentation": "labels",
    "mask": "labels",
}

CHECKED = 64  # pairs that are decoded when a dataset is created: enough to notice labels of another dataset
PROGRESS_FROM = 2000  # pairs, from which on checking the headers shows a progress bar


class PairedImages(FlippedDataset):
    """Images with label maps, resized to one size.

    Items: `image` float32 (3, H, W) in [-1, 1], `labels` uint8 (H, W), and `name`; entries not in `keys` are
        left
    out. Images are resized bicubic with antialiasing, label maps nearest neighbor, without preserving the
    aspect ratio.

    Args:
        pairs: The files.
        label_set: Label set of the label maps.
        size: Size of the items, an int or [H, W].
        keys: Entries to load, by their names in KEYS; None loads all.
        horizontal_flip: Flip each item with probability 1/2; left and right regions swap labels.
        seed: Seed of the flips, which are a function of (seed, epoch, index).
        table: Maps file values to labels, see `ldm.data.label_maps.label_table`; None if the values are the
            labels.

    Raises:
        ImageError: the header of a file, or one of 64 evenly spaced pairs that are decoded, is unusable.
            `check_all` decodes every pair.
        ValueError: invalid size, or unknown key.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        label_set: LabelSet,
        size: Size,
        keys: Sequence[str] | None = None,
        horizontal_flip: bool = False,
        seed: int = 0,
        table: np.ndarray | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self.label_set = label_set
        self.size = as_size(size)
        self.keys = sample_entries(keys)
        self.flips = EpochFlips(seed) if horizontal_flip else None
        self.table = table
        for pair in tqdm(self.pairs, "reading headers", unit="pair", disable=len(self.pairs) < PROGRESS_FROM):
            check_headers(pair, label_set, self.keys)
        for index in np.unique(
            np.linspace(0, len(self.pairs) - 1, min(CHECKED, len(self.pairs))).astype(int)
        ):
            self._load(self.pairs[index])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = self.pairs[index]
        item = self._load(pair)
        if self.flips is not None and self.flips.is_flipped(index % len(self.pairs)):
            flip(item, self.label_set)
        return {**item, "name": pair.name}

    def check_all(self, progress: bool = False) -> list[str]:
        """Load every pair; return the error messages, one per unusable pair."""
        errors = []
        for pair in tqdm(self.pairs, desc="checking", unit="pair", disable=not progress):
            try:
                self._load(pair)
            except ImageError as error:
                errors.append(str(error))
        return errors

    def files(self) -> list[Path]:
        """Return the files of the dataset."""
        return [path for pair in self.pairs for path in (pair.image, pair.labels) if path is not None]

    def _load(self, pair: Pair) -> dict[str, Tensor]:
        return load_pair(pair, self.label_set, self.size, self.keys, self.table)


def load_pair(
    pair: Pair,
    label_set: LabelSet,
    size: Size,
    keys: Sequence[str] = ("image", "labels"),
    table: np.ndarray | None = None,
) -> dict[str, Tensor]:
    """Load the entries `keys` of a pair, without flips; arguments as in `PairedImages`.

    Raises:
        ImageError: a file is unusable, or the aspect ratios differ.
    """
    image, labels = pair.image if "image" in keys else None, pair.labels if "labels" in keys else None
    return load_entries(image, labels, label_set, size, table)


def load_entries(
    image: Source | None,
    labels: Source | None,
    label_set: LabelSet,
    size: Size,
    table: np.ndarray | None = None,
) -> dict[str, Tensor]:
    """Load an image, a label map or both, from paths or open files; otherwise as `load_pair`."""
    item: dict[str, Tensor] = {}
    shapes = []
    if image is not None:
        with open_image(image) as photo:
            shapes.append(upright_size(photo))
            item["image"] = to_tensor(read_rgb(photo, size))
    if labels is not None:
        with open_image(labels) as mask:
            shapes.append(_size(mask))
            item["labels"] = read_labels(mask, label_set, size, table)
    if image is not None and labels is not None:
        check_same_aspect(image, labels, *shapes)
    return item


def check_headers(pair: Pair, label_set: LabelSet, keys: Sequence[str]) -> None:
    """Check the headers of a pair, which takes about 0.3 ms.

    Raises:
        ImageError: a file is no image or too large, a label map of an unsupported format, or different aspect
            ratios.
    """
    shapes = []
    if "image" in keys and pair.image is not None:
        with open_image(pair.image) as photo:
            # The orientation of a PNG may be stored behind its pixels, and is rare.
            shapes.append(_size(photo) if photo.format == "PNG" else upright_size(photo))
    if "labels" in keys and pair.labels is not None:
        with open_image(pair.labels) as mask:
            check_label_format(mask, label_set)
            shapes.append(_size(mask))
    if len(shapes) == 2 and pair.image and pair.labels and not _same_aspect(*shapes):
        with open_image(pair.image) as photo:
            check_same_aspect(pair.image, pair.labels, upright_size(photo), shapes[1])


def sample_entries(keys: Sequence[str] | None) -> tuple[str, ...]:
    """Return the entries that `keys` selects: ("image", "labels"), or one of them; None selects both.

    Raises:
        ValueError: unknown key, or no key.
    """
    if keys is None:
        return ("image", "labels")
    if isinstance(keys, str):
        raise ValueError(f"keys must be a list, such as [{keys}], got the string {keys!r}")
    for key in keys:
        if key not in KEYS:
            raise ValueError(
                f"unknown key {key!r}; did you mean {closest_name(key, KEYS)}? Available: {', '.join(KEYS)}"
            )
    found = tuple(entry for entry in ("image", "labels") if entry in {KEYS[key] for key in keys})
    if not found:
        raise ValueError(f"keys is empty; expected some of {', '.join(KEYS)}, or no keys to load all")
    return found


def _size(image: Image.Image) -> tuple[int, int]:
    return image.height, image.width


def _same_aspect(image: tuple[int, int], labels: tuple[int, int]) -> bool:
    return abs(image[0] * labels[1] - image[1] * labels[0]) <= max(image)


def check_same_aspect(photo: Source, mask: Source, image: tuple[int, int], labels: tuple[int, int]) -> None:
    """Raise ImageError unless the sizes (H, W) of image and label map have the same aspect ratio, up to rounding."""
    (height, width), (label_height, label_width) = image, labels
    if not _same_aspect(image, labels):
        raise ImageError(
            f"{mask} has {label_width} x {label_height} pixels, but {photo} has {width} x {height}; "
            "expected the same aspect ratio. Is it the label map of another image, or cropped?"
        )
