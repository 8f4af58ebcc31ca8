"""What all tests share."""

import os

# Before torch is imported: threads that wait by spinning make a busy machine ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

ASKED_FOR_SLOW = os.environ.get("RUN_SLOW", "") not in ("", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the slow tests unless RUN_SLOW=1."""
    if not ASKED_FOR_SLOW:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs minutes or gigabytes; RUN_SLOW=1 runs it"))
