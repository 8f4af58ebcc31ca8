"""How the process's memory comes from the system, and goes back."""

import ctypes
import os
import platform

LARGE = 4 * 2**20  # bytes; most feature maps, weights and gradients of the published model have 4 to 60 MiB
LARGE_MODEL = 2**30  # bytes of weights
M_MMAP_THRESHOLD = -3  # of malloc.h


def ask_for_huge_pages() -> None:
    """Have torch ask for pages of 2 MiB where it takes that much or more; before torch is imported.

    New memory then costs the system half as long (a tenth of a training step of the published model, on Linux).
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def return_large_blocks(weights: int) -> bool:
    """Have memory of `LARGE` bytes and more returned to the system as soon as it is freed; tell whether it will be.

    By default glibc does so only until the first such block is freed, and from then on keeps them for other uses: what
    the next layer wants rarely fits, so that a training step on the CPU holds more than it uses (half a gigabyte of the
    published model's nine). Getting pages anew takes time, for small models a quarter of a step: those below
    `LARGE_MODEL` are left as they are, and so are other C libraries and other systems.

    Args:
        weights: bytes of the model's weights.
    """
    if weights < LARGE_MODEL or platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE))
