"""How many images the memory lets one make at once."""

from typing import Any

from torch import Tensor

SHARE = 0.7  # of the free memory; the rest is for what is not counted


def told(error: Exception, batch_size: int | None) -> str:
    """Return an error as one line for a command's user; on whatever device, too little memory says what to do.

    Raises:
        RuntimeError: `error` itself, if it is one that no user can mend.
    """
    said = " ".join(str(error).split())
    short = ("out of memory", "can't allocate memory", "cannot allocate memory")
    if isinstance(error, MemoryError) or any(words in said.lower() for words in short):
        if batch_size is None:
            return "too little memory for this photo; make it smaller first"
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
