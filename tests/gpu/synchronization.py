"""Count how often the host waits for the device."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}


class _Reads(TorchDispatchMode):
    """Records operations that would wait for a GPU, such as those of `item()`, `bool()` and `nonzero()`."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def synchronizations(device: torch.device) -> Iterator[list[str]]:
    """Collect where the host waits for the device within the context: file and line, or the operation on a CPU."""
    found: list[str] = []
    if device.type != "cuda":
        with _Reads(found):
            yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found += [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
