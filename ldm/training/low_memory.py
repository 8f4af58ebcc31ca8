"""Training of a large model on a CPU with less memory: huge pages, and freed blocks returned at once.

With `model.params.step_in_backward` (`ldm.models.optimizers.AdamWInBackward`) this serves the 560 M model.
"""

import ctypes
import os
import platform

LARGE = 4 * 2**20  # bytes; most feature maps, weights and gradients of the published model have 4 to 60 MiB
LARGE_MODEL = 2**30  # bytes of weights
M_MMAP_THRESHOLD = -3  # of malloc.h


def ask_for_huge_pages() -> None:
    """Make torch use huge pages of 2 MiB for large tensors; call it before importing torch.

    This halves the cost of new memory on Linux, a tenth of a training step of the published model.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def return_large_blocks(weights: int) -> bool:
    """Return freed blocks of `LARGE` bytes or more to the system immediately; return whether that is in effect.

    By default, glibc raises its threshold after the first such block and keeps later ones, which rarely fit
    the next allocation, so that a CPU training step holds more memory than it uses (0.5 of 9 GB for the
    published model). Allocating pages again takes time, a quarter of a step for small models, so the setting
    is left unchanged for models below `LARGE_MODEL`, and for other C libraries and systems.

    Args:
        weights: size of the model's weights in bytes.
    """
    if weights < LARGE_MODEL or platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE))
