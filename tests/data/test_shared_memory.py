"""Error for a small /dev/shm, instead of a bus error of a worker."""

import pytest

from ldm.data.shared_memory import PLENTY, check_shared_memory
from tests.training.tiny import TinyFaces

FACES = TinyFaces(length=4)
BATCH = 4 * sum(FACES[0][key].nbytes for key in ("image", "labels"))


def test_error_names_the_bytes_and_the_options() -> None:
    with pytest.raises(ValueError, match=f"{6 * BATCH:,} bytes") as caught:
        check_shared_memory(FACES, 4, workers=3, free=6 * BATCH - 1)
    assert f"{BATCH:,} each" in str(caught.value)
    assert "num_workers=0" in str(caught.value) and "--shm-size" in str(caught.value)


def test_sufficient_shared_memory_and_no_workers() -> None:
    check_shared_memory(FACES, 4, workers=3, free=6 * BATCH)
    check_shared_memory(FACES, 4, workers=0, free=0)
    check_shared_memory(FACES, 10**9, workers=1, free=PLENTY)
