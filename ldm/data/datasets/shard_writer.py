"""Datasets -> shards: what `scripts/make_shards.py` does."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.atomic_files import write_text
from ldm.data.datasets.folders import PHOTO_SUFFIXES, files_by_name, pair_by_name
from ldm.data.datasets.shards import INDEX, ShardIndex
from ldm.data.datasets.tar_shard import LABELS_SUFFIX, ShardError
from ldm.data.images import to_uint8
from ldm.data.labels import LABEL_SETS, LabelSet
from ldm.targets import ConfigError

Sample = tuple[str, dict[str, bytes]]  # name; content by suffix


def folder_samples(folder: Path, label_set: str, seed: int) -> tuple[LabelSet, Iterator[Sample]]:
    """Return the files of images/ and labels/ in `folder`, as they are, in a random order.

    Raises:
        FolderError: a file lacks its partner.
        ConfigError: there is no such label set.
    """
    if label_set not in LABEL_SETS:
        raise ConfigError(f"--label-set {label_set}: there are {', '.join(LABEL_SETS)}")
    pairs = pair_by_name(
        files_by_name(folder / "images", PHOTO_SUFFIXES), files_by_name(folder / "labels", (".png",))
    )

    def samples() -> Iterator[Sample]:
        for number in np.random.default_rng(seed).permutation(len(pairs)):
            pair = pairs[number]
            assert pair.image is not None and pair.labels is not None
            content = {pair.image.suffix.lower().lstrip("."): pair.image.read_bytes()}
            yield pair.name, {**content, LABELS_SUFFIX: pair.labels.read_bytes()}

    return LABEL_SETS[label_set], samples()


def dataset_samples(dataset: Dataset[dict[str, Any]], seed: int) -> tuple[LabelSet, Iterator[Sample]]:
    """Return the items of a dataset as PNGs, in a random order.

    Raises:
        ConfigError: the dataset flips, or has no label set.
    """
    label_set = getattr(dataset, "label_set", None)
    if label_set is None:
        raise ConfigError(f"{type(dataset).__name__} has no label maps; there is nothing to train on in it")
    if getattr(dataset, "flips", None) is not None:
        raise ConfigError("leave out horizontal_flip here, and set it where the shards are read")

    def samples() -> Iterator[Sample]:
        for number in np.random.default_rng(seed).permutation(len(dataset)):  # type: ignore[arg-type]
            item = dataset[int(number)]
            content = {"png": _png(to_uint8(item["image"])), LABELS_SUFFIX: _png(item["labels"].numpy())}
            yield item["name"], content

    return label_set, samples()


def write_shards(folder: Path, label_set: LabelSet, samples: Iterator[Sample], per_shard: int) -> ShardIndex:
    """Write `folder`/00000.tar, 00001.tar, ... and, once all are there, their index.

    Raises:
        ShardError: there is an index already, a name has a dot, which would end it in a tar, or comes twice.
        ConfigError: webdataset is not installed, or `per_shard` is less than 1.
    """
    try:
        import webdataset
    except ImportError as error:
        raise ConfigError('writing shards needs webdataset; pip install -e ".[shards]"') from error
    if per_shard < 1:
        raise ConfigError(f"--per-shard {per_shard}: wanted at least 1")
    if (folder / INDEX).exists():
        raise ShardError(f"{folder} holds shards already; remove it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].tar"):  # of a call that was stopped
        old.unlink()
    files: list[Path] = []
    pictures: list[int] = []
    seen: set[str] = set()
    pattern = str(folder).replace("%", "%%") + "/%05d.tar"
    writer = webdataset.ShardWriter(
        pattern, maxcount=per_shard, maxsize=float("inf"), verbose=0, encoder=False, mtime=0
    )
    with writer:
        for name, content in tqdm(samples, str(folder), unit="picture"):
            if "." in name or name in seen:
                problem = "has a dot" if "." in name else "comes twice"
                raise ShardError(f"the name {name} {problem}; rename its files")
            seen.add(name)
            writer.write({"__key__": name, **content})
            if not files or str(files[-1]) != writer.fname:
                files.append(Path(writer.fname))
                pictures.append(0)
            pictures[-1] += 1
    sizes = tuple(file.stat().st_size for file in files)
    index = ShardIndex(label_set, tuple(file.name for file in files), tuple(pictures), sizes)
    write_text(folder / INDEX, index.to_json())
    return index


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()
