"""How much memory there is, and how many images that lets one make at once."""

import gc
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CGROUP = Path("/sys/fs/cgroup")
SHARE = 0.7  # of the free memory; the rest is for what is not counted


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory is left on a device, or None where that cannot be told."""
    if device.type == "cuda":
        gc.collect()
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    found = [amount for amount in (_available(), _left_in_container()) if amount is not None]
    return min(found) if found else None


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_container() -> int | None:
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(cached.get("inactive_file", 0))


def told(error: Exception, batch_size: int) -> str:
    """Return an error as one line for a command's user; on whatever device, too little memory says what to do.

    Raises:
        RuntimeError: `error` itself, if it is one that no user can mend.
    """
    said = " ".join(str(error).split())
    short = ("out of memory", "can't allocate memory", "cannot allocate memory")
    if isinstance(error, MemoryError) or any(words in said.lower() for words in short):
        return f"too little memory for {batch_size} pictures at once; lower --batch-size"
    if isinstance(error, RuntimeError):
        raise error
    return said


def bytes_of(tree: Any) -> int:
    """Return the size of all tensors in nested mappings, lists and tuples."""
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, dict):
        return sum(bytes_of(part) for part in tree.values())
    return sum(bytes_of(part) for part in tree) if isinstance(tree, list | tuple) else 0
