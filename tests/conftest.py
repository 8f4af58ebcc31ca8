"""What all tests share."""

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes of `make test` take one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import ldm  # noqa: F401 (sets OMP_WAIT_POLICY, before torch is imported)

ASKED_FOR_SLOW = os.environ.get("RUN_SLOW", "") not in ("", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the slow tests unless RUN_SLOW=1."""
    if not ASKED_FOR_SLOW:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs minutes or gigabytes; RUN_SLOW=1 runs it"))
