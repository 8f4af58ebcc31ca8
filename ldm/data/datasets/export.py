"""Checks before a dataset is written as shards or latents."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ldm.data.datasets.sharded_dataset import INDEX
from ldm.output_files import OutputError, check_outputs


def dataset_files(dataset: Any) -> list[Path]:
    """Return the local files of a dataset; none if it has no method `files`, as synthetic faces."""
    files = getattr(dataset, "files", None)
    return files() if callable(files) else []


def check_export(folder: Path, first_shard: str, inputs: Iterable[Path], size: int) -> None:
    """Check that shards and their index can be written to `folder`, which must not be a folder of inputs.

    Args:
        folder: output folder.
        first_shard: name of the first shard.
        inputs: files that are read.
        size: bytes that the shards need at least.

    Raises:
        OutputError: the folder has inputs, cannot be written to, or lacks space.
    """
    inputs = list(inputs)
    for parent in {file.parent for file in inputs}:
        if folder.exists() and parent.exists() and folder.samefile(parent):
            raise OutputError(f"{folder} has files of the dataset; choose another output folder")
    check_outputs([folder / INDEX, folder / first_shard], inputs, size)
