"""Reads that wait for a GPU, recognized on a CPU."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense,  # item(), bool(), int(), float()
    aten.bincount,
    aten.equal,
    aten.masked_select,
    aten.nonzero,
    aten._unique,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.unique_dim_consecutive,
}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
COPIES = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__}


def waits(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether the host would wait for a GPU: the operation reads values, or their number is its size."""
    packet = getattr(func, "overloadpacket", None)
    if packet in INDEXED:  # a mask becomes as many indices as it has true values
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if packet is aten.repeat_interleave:
        return kwargs.get("output_size") is None
    return packet in READS


class NoReads(TorchDispatchMode):
    """Refuses operations that wait for a GPU, such as those of `item()`, `bool()` and `x[mask]`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not waits(func, args, kwargs or {}), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


class FindReads(TorchDispatchMode):
    """Collects the names of operations that wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if waits(func, args, kwargs or {}):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


class OnDevice(Tensor):
    """A tensor that stands for one on a GPU, like all that is computed from it: copying it to the host fails.

    A dispatch mode does not see copies to the host of tensors that are there.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in COPIES, f"{func.__name__} waits for the device"
        return super().__torch_function__(func, types, args, kwargs or {})


def on_device(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch whose tensors stand for some on a GPU."""
    return {k: v.as_subclass(OnDevice) if torch.is_tensor(v) else v for k, v in batch.items()}
