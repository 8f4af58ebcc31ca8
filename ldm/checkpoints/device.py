"""The device that a model runs on."""

import torch


def usable_device(device: str | torch.device | None = None) -> torch.device:
    """Return a device, by default the first available of CUDA, MPS and the CPU.

    Raises:
        ValueError: a device that does not exist or is not available.
    """
    if device is None:
        best = _available()[-1]
        return torch.device("cuda" if best.startswith("cuda") else best)
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError, TypeError, OverflowError):
        found = torch.device("meta")
    if found.type == "meta":  # a device without memory, for shapes alone
        raise ValueError(
            f"device must be one of those available here ({', '.join(_available())}), got {str(device)[:40]!r}"
        )
    return found


def _available() -> list[str]:
    """Return the devices of this machine, the slowest first."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.append("mps")
    if torch.cuda.is_available():
        found += [f"cuda:{index}" for index in reversed(range(torch.cuda.device_count()))]
    return found
