"""Check that shared memory holds the batches of worker processes; containers often have only 64 MB of it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

SHARED = Path("/dev/shm")  # Linux; macOS and Windows have no such limit
PLENTY = 2**30  # bytes; with as much free memory, the size of the batches is not checked
PREFETCHED = 2  # batches per worker that DataLoader prefetches by default


def check_shared_memory(
    dataset: Dataset[Any], batch_size: int, workers: int, free: int | None = None
) -> None:
    """Check that shared memory holds the prefetched batches.

    Args:
        dataset: items are mappings of tensors, or tuples, of a fixed size.
        batch_size: items per batch.
        workers: number of worker processes; 0 uses no shared memory.
        free: free bytes; None for those of /dev/shm.

    Raises:
        ValueError: it does not; the kernel would kill a worker (bus error).
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
            f"{workers} workers need up to {needed:,} bytes for batches ({batch:,} each) in {SHARED}, which has "
            f"{free:,} free; set data.params.num_workers=0, or start the container with a larger --shm-size"
        )
