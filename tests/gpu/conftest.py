"""The device of these tests: CUDA, or another one named by SCA_DM_GPU_TESTS_DEVICE, such as cpu."""

import os
from collections.abc import Iterator

import pytest
import torch

NAME = os.environ.get("SCA_DM_GPU_TESTS_DEVICE", "cuda")


@pytest.fixture
def device() -> Iterator[torch.device]:
    """Return the device; products and convolutions in float32 compute in float32, not in TF32."""
    found = torch.device(NAME)
    if found.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; SCA_DM_GPU_TESTS_DEVICE=cpu runs it on the CPU")
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield found
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
