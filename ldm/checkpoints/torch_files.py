"""Files of `torch.save`, the zip form and the one before torch 1.6, read without torch.load.

torch.load hands TorchScript archives to torch.jit.load and tar files to an extractor; here the two containers
are taken apart directly. Tensors are copy-on-write views of the mapped file, so the optimizer's share of a
training checkpoint is never read. The archive's checksums are verified.
"""

import io
import math
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoints.errors import CheckpointError, UnsafePickle
from ldm.checkpoints.file_type import special_file
from ldm.checkpoints.pickle_records import ArrayRecord, Reference, StorageRecord, TensorRecord
from ldm.checkpoints.pickles import RestrictedUnpickler

MAGIC_NUMBER = (
    0x1950A86A20F9469CFC6C  # torch.serialization's; the first pickle of a file from before torch 1.6
)
LARGEST_PICKLE = (
    2**25
)  # bytes, which may take a hundred times that in memory; a checkpoint of 10^5 tensors has less
LONGEST_ORDER = 16  # bytes

Locate = Callable[[StorageRecord], int]


def read_torch_file(path: Path, without: Collection[str] = ()) -> tuple[Any, list[str]]:
    """Read a file of `torch.save`, in either form.

    Args:
        path: the file.
        without: keys at its top that are left out, unread.

    Returns:
        The saved object, and one line "where: name" for each reference to a class that was left out.

    Raises:
        UnsafePickle: the file would run code, or is a TorchScript program.
        CheckpointError: it is damaged or not a torch file.
    """
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        if mapped[:2] == b"PK":
            saved, locate = _open_zip(path, mapped)
        else:
            saved, locate = _open_legacy(path, mapped)
        if isinstance(saved, dict):
            saved = {key: value for key, value in saved.items() if key not in without}
        reader = _Reader(mapped, locate)
        return reader.resolve(saved, ""), reader.skipped
    except CheckpointError:
        raise
    except (
        Exception
    ) as error:  # a damaged file may break anything on the way: struct.error, RecursionError, ...
        raise CheckpointError(
            f"{path}: damaged ({type(error).__name__}: {error}); download or save the file again"
        ) from error


def _open_zip(path: Path, mapped: mmap.mmap) -> tuple[Any, Locate]:
    """Return what data.pkl of a zip file holds, and where its storages lie."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path}: the end of the file is missing ({len(mapped):,} bytes are there); the download or "
            "the copy was cut off, download the file again"
        ) from error
    with archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        root = _root_of(path, list(entries))
        order = entries.get(f"{root}byteorder")
        if order is not None and order.file_size > LONGEST_ORDER:
            raise CheckpointError(f"{path}: its byteorder has {order.file_size:,} bytes, expected `little`")
        if order is not None and archive.read(order) == b"big":
            raise CheckpointError(f"{path}: saved on a big-endian machine; save it as safetensors there")
        if entries[f"{root}data.pkl"].file_size > LARGEST_PICKLE:
            raise CheckpointError(
                f"{path}: its data.pkl is larger than any checkpoint's; the file is not usable"
            )
        with archive.open(f"{root}data.pkl") as file:
            saved = RestrictedUnpickler(io.BytesIO(file.read()), str(path)).load()

    def locate(storage: StorageRecord) -> int:
        entry = entries[f"{root}data/{storage.key}"]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise CheckpointError(
                f"{path}: the zip archive was repacked by another program; get the original file"
            )
        if entry.file_size < storage.numel * storage.dtype.itemsize:
            raise ValueError(f"{entry.filename} has {entry.file_size} bytes, too few")
        header = mapped[entry.header_offset : entry.header_offset + 30]
        name_length, extra_length = struct.unpack("<HH", header[26:])
        start = entry.header_offset + 30 + name_length + extra_length
        with memoryview(mapped) as whole, whole[start : start + entry.file_size] as content:
            if zlib.crc32(content) != entry.CRC:
                raise ValueError(f"checksum mismatch in {entry.filename}")
        return start

    return saved, locate


def verify_checksums(path: Path) -> None:
    """Hold every part of a zip file of `torch.save` against its CRC-32; a file of the older form has none.

    Raises:
        CheckpointError: one differs, or the file is cut off.
    """
    if (kind := special_file(path)) is not None:
        raise CheckpointError(f"{path} is {kind}, expected a checkpoint")
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, EOFError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from error
    if bad is not None:
        raise CheckpointError(f"{path}: damaged (checksum mismatch in {bad})")


def _root_of(path: Path, names: list[str]) -> str:
    """Return the folder inside a zip file in which torch put data.pkl, with its slash."""
    if any(re.search(r"(^|/)(constants\.pkl$|code/)", name) for name in names):
        raise UnsafePickle(
            f"{path}: a TorchScript archive, which is a program and not weights; it was not loaded. Ask its "
            "author for a file with only the weights (torch.save(model.state_dict()) or safetensors)"
        )
    roots = [name.removesuffix("data.pkl") for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(roots) != 1:
        found = ", ".join(names[:5]) or "nothing"
        raise CheckpointError(
            f"{path}: a zip archive, but not one of torch.save; it holds {found}. Unpack it and give the "
            "weight file inside"
        )
    return roots[0]


def _open_legacy(path: Path, mapped: mmap.mmap) -> tuple[Any, Locate]:
    """Return what a file from before torch 1.6 holds, and where its storages lie.

    The file is a row of pickles (magic number, protocol version, system, the object, the storages' keys),
    then for each key the number of elements (int64) and the elements.
    """
    magic = RestrictedUnpickler(mapped, str(path)).load()
    if type(magic) is not int or magic != MAGIC_NUMBER:
        raise CheckpointError(
            f"{path}: a Python pickle, but not one of torch.save; save the state dict with torch.save"
        )
    RestrictedUnpickler(mapped, str(path)).load()  # protocol version, 1001 ever since
    system = RestrictedUnpickler(mapped, str(path)).load()
    if not system.get("little_endian", True):
        raise CheckpointError(f"{path}: saved on a big-endian machine; save it as safetensors there")
    unpickler = RestrictedUnpickler(mapped, str(path))
    saved = unpickler.load()
    keys = RestrictedUnpickler(mapped, str(path)).load()
    places = {}
    position = mapped.tell()
    for key in keys:
        storage = unpickler.storages[str(key)]
        if struct.unpack_from("<q", mapped, position)[0] != storage.numel:
            raise ValueError(f"storage {key}: expected {storage.numel} elements")
        places[storage.key] = position + 8
        position += 8 + storage.numel * storage.dtype.itemsize
    return saved, lambda storage: places[storage.key]


class _Reader:
    """Turns the records of a pickle into tensors and arrays, and leaves out references to classes.

    Attributes:
        skipped: one line "where: name" for each reference that was left out.
    """

    def __init__(self, mapped: mmap.mmap, locate: Locate) -> None:
        self.mapped = mapped
        self.locate = locate
        self.skipped: list[str] = []
        self._storages: dict[tuple[str, torch.dtype], Tensor] = {}
        self._done: dict[int, Any] = {}  # id of a container -> its result: a pickle may hold one many times

    def resolve(self, value: Any, where: str) -> Any:
        """Return `value`, found at `where`, with real tensors and without references."""
        if isinstance(value, TensorRecord):
            return self._tensor(value)
        if isinstance(value, ArrayRecord):
            return value.array
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = (
                self._dict(value, where) if isinstance(value, dict) else self._row(value, where)
            )
        return self._done[id(value)]

    def _dict(self, items: dict[Any, Any], where: str) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        self._done[id(items)] = result  # before its items, because it may contain itself
        for key, value in items.items():
            name = next((part.name for part in (key, value) if isinstance(part, Reference)), None)
            if name is not None:
                self.skipped.append(f"{where or 'top level'}: {name}")
            else:
                result[key] = self.resolve(value, f"{where}.{key}" if where else str(key))
        return result

    def _row(self, items: Any, where: str) -> Any:
        result: list[Any] = []
        if isinstance(items, list):
            self._done[id(items)] = result
        for index, value in enumerate(items):
            if isinstance(value, Reference):
                self.skipped.append(f"{where or 'top level'}: {value.name}")
            else:
                result.append(self.resolve(value, f"{where}[{index}]"))
        return result if isinstance(items, list) else type(items)(result)

    def _tensor(self, record: TensorRecord) -> Tensor:
        """Return the tensor as a view of the mapped file; tensors that shared a storage share it here."""
        elements = math.prod(record.size)
        if elements == 0:
            return torch.empty(record.size, dtype=record.dtype)
        flat = self._flat(record.storage, record.dtype)
        last = record.offset + sum((n - 1) * step for n, step in zip(record.size, record.stride, strict=True))
        if last >= flat.numel():
            raise ValueError(f"a tensor of size {record.size} exceeds its storage of {flat.numel()} elements")
        if elements * record.dtype.itemsize > len(self.mapped):  # stride 0 can claim any size
            raise ValueError(f"a tensor of size {record.size} is larger than the file")
        return flat.as_strided(record.size, record.stride, record.offset)

    def _flat(self, storage: StorageRecord, dtype: torch.dtype) -> Tensor:
        """Return all numbers of a storage as a vector."""
        key = (storage.key, dtype)
        if key not in self._storages:
            count = storage.numel * storage.dtype.itemsize // dtype.itemsize
            if count == 0:
                raise ValueError(f"storage {storage.key} is empty")
            flat = torch.frombuffer(self.mapped, dtype=dtype, count=count, offset=self.locate(storage))
            # Files packed again by other programs lose torch's alignment, which vector instructions rely on.
            self._storages[key] = flat if flat.data_ptr() % dtype.itemsize == 0 else flat.clone()
        return self._storages[key]
