"""How the process's memory goes back to the system."""

import ctypes
import platform

LARGE = 4 * 2**20  # bytes; most feature maps, weights and gradients of the published model have 4 to 60 MiB
M_MMAP_THRESHOLD = -3  # of malloc.h


def return_large_blocks() -> bool:
    """Have memory of `LARGE` bytes and more returned to the system as soon as it is freed; tell whether it will be.

    By default glibc does so only until the first such block is freed, and from then on keeps them for other uses: what
    the next layer wants rarely fits, so that a training step on the CPU holds more than it uses (half a gigabyte of the
    published model's nine). Other C libraries, and other systems, are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE))
