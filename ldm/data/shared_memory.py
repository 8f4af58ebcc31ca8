"""Whether shared memory holds the batches that reading processes pass on; containers often have 64 MB of it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

SHARED = Path("/dev/shm")  # Linux; macOS and Windows have no such limit
PLENTY = 2**30  # bytes; with as many free no item is read to measure it
PREFETCHED = 2  # batches of each process that are ready ahead, DataLoader's own number


def check_shared_memory(
    dataset: Dataset[Any], batch_size: int, workers: int, free: int | None = None
) -> None:
    """Check that shared memory holds the batches that are read ahead.

    Args:
        dataset: mappings of tensors, all of one size.
        batch_size: items of a batch.
        workers: reading processes; 0 use no shared memory.
        free: bytes; None looks.

    Raises:
        ValueError: it does not; the kernel would kill a reading process (Bus error).
    """
    if free is None:
        free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else PLENTY
    if workers == 0 or free >= PLENTY:
        return
    item = dataset[0]
    values = item.values() if isinstance(item, Mapping) else item
    batch = batch_size * sum(value.nbytes for value in values if isinstance(value, Tensor))
    needed = batch * workers * PREFETCHED
    if needed > free:
        raise ValueError(
            f"{workers} reading processes keep up to {needed:,} bytes of batches ({batch:,} each) in {SHARED}, which "
            f"has {free:,} free; set data.params.num_workers=0, or start the container with a larger --shm-size"
        )
