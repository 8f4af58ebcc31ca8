"""Pictures with label maps, as items of one size: what the datasets of files have in common."""

import difflib
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.data.datasets.folders import Pair
from ldm.data.images import (
    ImageError,
    Size,
    Source,
    as_size,
    check_label_format,
    open_image,
    read_labels,
    read_rgb,
    to_tensor,
    upright_size,
)
from ldm.data.labels import LabelSet

KEYS = {  # what a YAML may call an entry of a sample -> the entry
    "image": "image",
    "images": "image",
    "labels": "labels",
    "label": "labels",
    "segmentation": "labels",
    "mask": "labels",
}

_SAMPLED = 64  # pairs that are decoded when a dataset is made: enough to notice labels of another dataset
_MANY = 2000  # from this many pairs on, looking at their headers takes long enough for a progress bar


class EpochFlips:
    """Which items of an epoch are flipped: half of them, a function of (seed, epoch, index)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # In shared memory, so that worker processes that live on between epochs see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; also reaches workers that run already."""
        self._epoch.fill_(epoch)

    def is_flipped(self, index: int) -> bool:
        """Tell whether the item is flipped in this epoch."""
        key = f"{self.seed} {int(self._epoch)} {index}".encode()
        return bool(hashlib.blake2b(key, digest_size=1).digest()[0] & 1)


class PairedImages(Dataset[dict[str, Any]]):
    """Pictures with label maps, resized to one size; the datasets derive from it.

    An item is {"image": float32 (3, H, W) in [-1, 1], "labels": uint8 (H, W), "name": str}, without the entries
    that `keys` leaves out. Pictures are resized bicubic and antialiased, label maps nearest, both straight to
    `size`: a file of another aspect ratio is squeezed.

    Args:
        pairs: The files.
        label_set: What the labels mean.
        size: Size of the items, an int or [H, W].
        keys: The entries to load, by a name in KEYS; None loads all.
        horizontal_flip: Flip each item left to right with probability 1/2; left and right regions swap labels.
        seed: The flips are a function of (seed, epoch, index), of no other random state.
        table: What the numbers in label files mean, if not the labels (see `ldm.data.images.label_table`).

    Raises:
        FolderError: there are no files, or some are empty.
        ImageError: the header of any file, or the content of one of 64 pairs spread over the folder, cannot be used.
            `check_all` decodes every one.
        ValueError: a wrong size or key.
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
        self.keys = wanted_keys(keys)
        self.flips = EpochFlips(seed) if horizontal_flip else None
        self.table = table
        for pair in tqdm(self.pairs, "reading headers", unit="pair", disable=len(self.pairs) < _MANY):
            check_headers(pair, label_set, self.keys)
        for index in np.unique(
            np.linspace(0, len(self.pairs) - 1, min(_SAMPLED, len(self.pairs))).astype(int)
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

    def set_epoch(self, epoch: int) -> None:
        """Choose which items the coming epoch flips; also reaches workers that run already."""
        if self.flips is not None:
            self.flips.set_epoch(epoch)

    def check_all(self, progress: bool = False) -> list[str]:
        """Load every pair and return the errors, one line each; empty means that all files are fine."""
        errors = []
        for pair in tqdm(self.pairs, desc="checking", unit="pair", disable=not progress):
            try:
                self._load(pair)
            except ImageError as error:
                errors.append(str(error))
        return errors

    def _load(self, pair: Pair) -> dict[str, Tensor]:
        return load_pair(pair, self.label_set, self.size, self.keys, self.table)


def flip(item: dict[str, Tensor], label_set: LabelSet) -> None:
    """Mirror the entries of an item, in place; left and right regions swap labels."""
    if "image" in item:  # numpy, for the reason that LabelSet.flip gives
        item["image"] = torch.from_numpy(np.flip(item["image"].numpy(), -1).copy())
    if "labels" in item:
        item["labels"] = label_set.flip(item["labels"])


def load_pair(
    pair: Pair,
    label_set: LabelSet,
    size: Size,
    keys: Sequence[str] = ("image", "labels"),
    table: np.ndarray | None = None,
) -> dict[str, Tensor]:
    """Load the entries `keys` of one pair as they are in the files, unflipped; arguments as `PairedImages`.

    Raises:
        ImageError: a file cannot be used, or the two have different shapes.
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
    """Load a picture, a label map or both, from files or open ones; otherwise as `load_pair`."""
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
    """Check what can be known of a pair without decoding it; takes a third of a millisecond.

    Raises:
        ImageError: a file is no picture or too large, the label map has colours or is a JPEG, or the shapes differ.
    """
    shapes = []
    if "image" in keys and pair.image is not None:
        with open_image(pair.image) as photo:
            # The orientation of a PNG may stand behind its pixels; hardly any has one.
            shapes.append(_size(photo) if photo.format == "PNG" else upright_size(photo))
    if "labels" in keys and pair.labels is not None:
        with open_image(pair.labels) as mask:
            check_label_format(mask, label_set)
            shapes.append(_size(mask))
    if len(shapes) == 2 and pair.image and pair.labels and not _same_aspect(*shapes):
        with open_image(pair.image) as photo:
            check_same_aspect(pair.image, pair.labels, upright_size(photo), shapes[1])


def wanted_keys(keys: Sequence[str] | None) -> tuple[str, ...]:
    """Return the entries of a sample that `keys` names: ("image", "labels"), or one of them.

    Raises:
        ValueError: an unknown key, or none at all.
    """
    if keys is None:
        return ("image", "labels")
    if isinstance(keys, str):
        raise ValueError(f"keys is the string {keys!r}; wanted a list, such as [{keys}]")
    for key in keys:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown key {key!r}; did you mean {near!r}? Known: {', '.join(KEYS)}")
    found = tuple(entry for entry in ("image", "labels") if entry in {KEYS[key] for key in keys})
    if not found:
        raise ValueError(f"keys is empty; wanted some of {', '.join(KEYS)}, or leave it out to load all")
    return found


def _size(image: Image.Image) -> tuple[int, int]:
    return image.height, image.width


def _same_aspect(image: tuple[int, int], labels: tuple[int, int]) -> bool:
    return abs(image[0] * labels[1] - image[1] * labels[0]) <= max(image)


def check_same_aspect(photo: Source, mask: Source, image: tuple[int, int], labels: tuple[int, int]) -> None:
    """Raise ImageError unless both (H, W) have the same aspect ratio, up to rounding."""
    (height, width), (label_height, label_width) = image, labels
    if not _same_aspect(image, labels):
        raise ImageError(
            f"{mask} has {label_width} x {label_height} pixels, but {photo} has {width} x {height}; "
            "wanted the same size, or the same shape. Is it the label map of another picture, or cropped?"
        )
