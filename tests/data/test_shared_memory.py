"""A small /dev/shm is one sentence instead of a Bus error."""

import pytest

from ldm.data.shared_memory import PLENTY, check_shared_memory
from tests.training.tiny import TinyFaces

FACES = TinyFaces(length=4)
BATCH = 4 * sum(FACES[0][key].nbytes for key in ("image", "labels"))


def test_what_does_not_fit_is_said_with_its_bytes() -> None:
    with pytest.raises(ValueError, match=f"{6 * BATCH:,} bytes") as caught:
        check_shared_memory(FACES, 4, workers=3, free=6 * BATCH - 1)
    assert f"{BATCH:,} each" in str(caught.value)
    assert "num_workers=0" in str(caught.value) and "--shm-size" in str(caught.value)


def test_what_fits_or_needs_no_shared_memory_passes() -> None:
    check_shared_memory(FACES, 4, workers=3, free=6 * BATCH)
    check_shared_memory(FACES, 4, workers=0, free=0)
    check_shared_memory(FACES, 10**9, workers=1, free=PLENTY)
