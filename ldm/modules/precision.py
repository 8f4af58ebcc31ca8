"""Choose between float32 and bfloat16: bfloat16 only where the device computes in it natively and is faster."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

GAIN = 0.85  # bfloat16 must take at most this fraction of float32's time
ROUNDS = 3
NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}  # CPU flags of x86 and ARM
CPUINFO = Path("/proc/cpuinfo")


def native_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for bfloat16; a CPU without them emulates it, which is slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not CPUINFO.is_file():
        return False
    lines = CPUINFO.read_text().splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not NATIVE.isdisjoint(flags.split())


def bfloat16_is_faster(step: Callable[[], object], device: torch.device) -> bool:
    """Measure `step` in float32 and under bfloat16 autocast; return whether bfloat16 is clearly faster.

    Both are measured in turn, so that other load slows both; the measurement ends early if the first round is
    decisive. Without native bfloat16, nothing is measured.
    """
    if not native_bfloat16(device):
        return False
    dtypes = (torch.float32, torch.bfloat16)
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        best = [
            min(before, _seconds(step, device, dtype)) for before, dtype in zip(best, dtypes, strict=True)
        ]
        if not 0.8 * GAIN < best[1] / best[0] < 1.2 * GAIN:
            break
    return best[1] < GAIN * best[0]


def training_in_bfloat16_is_faster(
    network: nn.Module, forward: Callable[[], Tensor], device: torch.device
) -> bool:
    """Measure `forward`, which runs `network` on an example, and its backward pass; see `bfloat16_is_faster`.

    Weights, gradients, mode and the random state stay as they are.
    """

    def step() -> None:
        torch.clear_autocast_cache()  # training converts the weights at every step
        forward().sum().backward()

    training = network.training
    network.eval()  # dropout would advance the random state, batch norms their statistics
    try:
        with torch.enable_grad():
            return bfloat16_is_faster(step, device)
    finally:
        network.train(training)
        network.zero_grad()


def _seconds(step: Callable[[], object], device: torch.device, dtype: torch.dtype) -> float:
    """Return the time of a step, infinite if the GPU's memory is too small for it."""
    try:
        return _measured_seconds(step, device, dtype)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return float("inf")


def _measured_seconds(step: Callable[[], object], device: torch.device, dtype: torch.dtype) -> float:
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        step()  # allocates memory, chooses kernels, and converts the weights once per autocast context
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        # On a CPU, processor time: it does not count the time that other processes take.
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        started = clock()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - started
