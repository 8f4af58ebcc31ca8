"""What is freed is the system's again."""

import platform
import subprocess
import sys

import pytest

from ldm.training.low_memory import return_large_blocks

USED_AFTER_FREEING = """
import sys, torch
from ldm.training.low_memory import return_large_blocks

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

torch.ones(6 * 2**20)  # 24 MiB, freed at once: from here on glibc would keep blocks of this size
if sys.argv[1] == "returned":
    assert return_large_blocks(2**30)
before = used()
held = [(torch.ones(5 * 2**20), torch.ones(2**12)) for _ in range(20)]
between = [small for _, small in held]
grown = used() - before
del held
print((used() - before) / grown)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
@pytest.mark.parametrize(("how", "kept"), [("kept", (0.5, 1.1)), ("returned", (-0.1, 0.1))])
def test_large_blocks_go_back_when_they_are_freed(how: str, kept: tuple[float, float]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USED_AFTER_FREEING, how], capture_output=True, text=True, check=True
    )
    assert kept[0] < float(done.stdout) < kept[1]


def test_for_small_models_nothing_is_changed() -> None:
    assert not return_large_blocks(2**20)
