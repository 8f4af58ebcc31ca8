"""Records in place of tensors, arrays and classes while a pickle is read: numbers and strings only.

BUILDERS holds every function that a pickle can call. Each is written here, checks what it is given, and makes
nothing but a record, a number, a string or a container.
"""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Reference:
    """A global that a pickle names. `build` is what calling it does here; None for everything foreign."""

    name: str
    build: Callable[..., Any] | None = None


@dataclass(frozen=True, eq=False)
class StorageType(Reference):
    """A reference to a class such as torch.FloatStorage."""

    dtype: torch.dtype = torch.uint8


@dataclass(frozen=True, eq=False)
class StorageRecord:
    """Numbers elsewhere in the file: `numel` elements under `key`, of which a view begins at `start`."""

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """Storage, dtype and layout of a tensor; offset and stride count elements of `dtype`."""

    storage: StorageRecord
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class DtypeRecord:
    """A NumPy dtype in the making: its code now, its byte order with BUILD."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"[<>|=]?([biufcSU]\d{1,4}|\?)", code):
            raise pickle.UnpicklingError(f"NumPy dtype {code!r}; only numbers and strings are read")
        self.code = code
        self.order = ""

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Take the byte order from NumPy's (version, order, ...)."""
        self.order = {"<": "<", ">": ">"}.get(state[1], "")

    def dtype(self) -> np.dtype:
        """Return the real dtype."""
        return np.dtype(self.order + self.code)


class ArrayRecord:
    """A NumPy array in the making: empty now, shape and bytes with BUILD."""

    def __init__(self, *ignored: Any) -> None:
        self.array = np.empty(0)

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Take NumPy's (version, shape, dtype, Fortran order, bytes)."""
        _, shape, dtype, fortran, data = state
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError("a NumPy array of Python objects")
        flat = np.frombuffer(data, dtype.dtype()).copy()
        self.array = flat.reshape(shape, order="F" if fortran else "C")


def is_count(value: object) -> bool:
    """Whether `value` is an integer from 0 on."""
    return type(value) is int and value >= 0


def _tensor(
    storage: StorageRecord,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> TensorRecord:
    """Stand in for torch._utils._rebuild_tensor and _rebuild_tensor_v2."""
    return _tensor_with_dtype(storage, offset, size, stride, requires_grad, hooks, None, metadata)


def _tensor_with_dtype(
    storage: StorageRecord,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
    dtype: torch.dtype | None,
    metadata: Any = None,
) -> TensorRecord:
    """Stand in for torch._utils._rebuild_tensor_v3, whose storages are untyped."""
    if not isinstance(storage, StorageRecord) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor without a storage, or with unequal size and stride")
    if not all(is_count(number) for number in (storage.start, offset, *size, *stride)):
        raise pickle.UnpicklingError(f"a tensor of size {size}, stride {stride}, offset {offset}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError(f"a tensor with the dtype {dtype!r}")
    if hooks:
        raise pickle.UnpicklingError("a tensor with hooks, which are functions to call")
    if metadata:
        raise pickle.UnpicklingError("a tensor with a conjugate or negative bit")
    return TensorRecord(storage, dtype or storage.dtype, storage.start + offset, tuple(size), tuple(stride))


def _parameter(data: Any, *ignored: Any) -> Any:
    """Stand in for torch._utils._rebuild_parameter: the tensor itself."""
    if not isinstance(data, TensorRecord):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return data


def _plain_dict(items: Any = ()) -> dict[Any, Any]:
    """Stand in for OrderedDict and Counter."""
    return dict(items)


def _plain_defaultdict(factory: Any = None, items: Any = ()) -> dict[Any, Any]:
    """Stand in for defaultdict; the factory is never called."""
    return dict(items)


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    """Stand in for codecs.encode, with which old pickle protocols write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return str.encode(text, "latin-1")


def _scalar(dtype: DtypeRecord, data: bytes) -> Any:
    """Stand in for NumPy's scalars: a plain Python number."""
    return np.frombuffer(data, dtype.dtype(), count=1)[0].item()


def _path(*parts: str) -> str:
    """Stand in for pathlib's classes."""
    return "/".join(parts).replace("//", "/")


def _device(kind: str, index: int | None = None) -> str:
    """Stand in for torch.device."""
    return kind if index is None else f"{kind}:{index}"


DTYPES = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
STORAGES = {
    "UntypedStorage": torch.uint8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": tuple,
    "torch.device": _device,
    "collections.OrderedDict": _plain_dict,
    "collections.Counter": _plain_dict,
    "collections.defaultdict": _plain_defaultdict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "_codecs.encode": _encode,
    "numpy.dtype": DtypeRecord,
    "numpy._core.multiarray._reconstruct": ArrayRecord,
    "numpy._core.multiarray.scalar": _scalar,
    "pathlib.PosixPath": _path,
    "pathlib.WindowsPath": _path,
    "pathlib._local.PosixPath": _path,
}
