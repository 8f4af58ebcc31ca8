"""Memory limits of sampling, and out-of-memory messages."""

from typing import Any

from torch import Tensor

from ldm.out_of_memory import is_out_of_memory, out_of_memory

USABLE = 0.7  # fraction of the free memory to fill; the estimate does not cover everything


def format_error(error: Exception, batch_size: int | None) -> str:
    """Format an error as one line for the command line, with advice for out-of-memory errors on any device.

    Raises:
        RuntimeError: `error` itself if it is a bug rather than a user error.
    """
    message = " ".join(str(error).split())
    if is_out_of_memory(error):
        if batch_size is None:
            return out_of_memory("for this photo", "resize it to fewer pixels first")
        return out_of_memory(f"with {batch_size} images at once", "lower --batch-size")
    if isinstance(error, RuntimeError):
        raise error
    return message


def bytes_of(tree: Any) -> int:
    """Return the bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, dict):
        return sum(bytes_of(part) for part in tree.values())
    return sum(bytes_of(part) for part in tree) if isinstance(tree, list | tuple) else 0
