"""Write datasets as tar shards, for `scripts/make_shards.py`."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.atomic_files import write_text
from ldm.data.datasets.export import dataset_files
from ldm.data.datasets.folders import PHOTO_SUFFIXES, files_by_name, pair_by_name
from ldm.data.datasets.sharded_dataset import INDEX
from ldm.data.datasets.shards import ShardIndex
from ldm.data.datasets.tar_shard import LABELS_SUFFIX, ShardError
from ldm.data.images import to_uint8
from ldm.data.labels import LABEL_SETS, LabelSet
from ldm.targets import ConfigError

Sample = tuple[str, dict[str, bytes]]  # name, content by suffix


@dataclass(frozen=True)
class ShardSource:
    """Samples to write.

    Attributes:
        label_set: label set of the label maps.
        samples: the samples.
        files: files that are read.
        size: lower bound of the bytes of all samples; 0 if unknown.
    """

    label_set: LabelSet
    samples: Iterator[Sample]
    files: list[Path]
    size: int = 0


def folder_samples(folder: Path, label_set: str, seed: int) -> ShardSource:
    """Return the files of images/ and labels/ in `folder`, unchanged and in random order.

    Raises:
        FolderError: an image without label map, or vice versa.
        ConfigError: unknown label set.
    """
    if label_set not in LABEL_SETS:
        raise ConfigError(f"unknown --label-set {label_set}; available: {', '.join(LABEL_SETS)}")
    pairs = pair_by_name(
        files_by_name(folder / "images", PHOTO_SUFFIXES), files_by_name(folder / "labels", (".png",))
    )

    def samples() -> Iterator[Sample]:
        for number in np.random.default_rng(seed).permutation(len(pairs)):
            pair = pairs[number]
            assert pair.image is not None and pair.labels is not None
            content = {pair.image.suffix.lower().lstrip("."): pair.image.read_bytes()}
            yield pair.name, {**content, LABELS_SUFFIX: pair.labels.read_bytes()}

    files = [path for pair in pairs for path in (pair.image, pair.labels) if path is not None]
    return ShardSource(LABEL_SETS[label_set], samples(), files, sum(file.stat().st_size for file in files))


def dataset_samples(dataset: Dataset[dict[str, Any]], seed: int) -> ShardSource:
    """Return the items of a dataset as PNGs, in random order.

    Raises:
        ConfigError: a dataset with flips, or without label maps.
    """
    label_set = getattr(dataset, "label_set", None)
    if label_set is None:
        raise ConfigError(
            f"{type(dataset).__name__} has no label maps; expected a dataset of images with label maps"
        )
    if getattr(dataset, "flips", None) is not None:
        raise ConfigError(
            "remove horizontal_flip from the config; set it for the dataset that reads the shards"
        )

    def samples() -> Iterator[Sample]:
        for number in np.random.default_rng(seed).permutation(len(dataset)):  # type: ignore[arg-type]
            item = dataset[int(number)]
            content = {"png": _png(to_uint8(item["image"])), LABELS_SUFFIX: _png(item["labels"].numpy())}
            yield item["name"], content

    return ShardSource(label_set, samples(), dataset_files(dataset))


def write_shards(folder: Path, label_set: LabelSet, samples: Iterator[Sample], per_shard: int) -> ShardIndex:
    """Write 00000.tar, 00001.tar, ... and then their index to `folder`.

    Raises:
        ShardError: the folder has an index already, or a name is repeated or has a dot, at which webdataset
            ends names.
        ConfigError: webdataset is not installed, or `per_shard` is less than 1.
    """
    try:
        import webdataset
    except ImportError as error:
        raise ConfigError('writing shards needs webdataset; pip install -e ".[shards]"') from error
    if per_shard < 1:
        raise ConfigError(f"--per-shard must be at least 1, got {per_shard}")
    if (folder / INDEX).exists():
        raise ShardError(f"{folder} already has shards; remove it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].tar"):  # of an interrupted call
        old.unlink()
    files: list[Path] = []
    counts: list[int] = []
    seen: set[str] = set()
    pattern = str(folder).replace("%", "%%") + "/%05d.tar"
    writer = webdataset.ShardWriter(
        pattern, maxcount=per_shard, maxsize=float("inf"), verbose=0, encoder=False, mtime=0
    )
    with writer:
        for name, content in tqdm(samples, str(folder), unit="image"):
            if "." in name or name in seen:
                problem = "has a dot" if "." in name else "is repeated"
                raise ShardError(f"the name {name} {problem}; rename the files")
            seen.add(name)
            writer.write({"__key__": name, **content})
            if not files or str(files[-1]) != writer.fname:
                files.append(Path(writer.fname))
                counts.append(0)
            counts[-1] += 1
    sizes = tuple(file.stat().st_size for file in files)
    index = ShardIndex(label_set, tuple(file.name for file in files), tuple(counts), sizes)
    write_text(folder / INDEX, index.to_json())
    return index


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()
