"""The two formats of weight files: safetensors, and those of `torch.save`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from ldm.checkpoints.config_files import INTEGERS, check_sections, parse_json
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.torch_files import read_torch_file
from ldm.targets import ConfigError

DIGEST = "sha256"  # of the tensors, in the metadata of our safetensors
TRAINING_STATE = ("optimizer_states", "lr_schedulers", "loops")  # of Lightning's checkpoints


@dataclass
class Checkpoint:
    """Contents of a weight file.

    Attributes:
        state_dict: tensors by key, on the CPU.
        path: the file.
        step: optimizer steps, if the file has them.
        epoch: epochs, if the file has them.
        config: the config in or beside the file, if there is one.
    """

    state_dict: dict[str, Tensor]
    path: Path
    step: int | None = None
    epoch: int | None = None
    config: dict[str, Any] | None = None


def read_safetensors(file: Path) -> Checkpoint:
    """Read a safetensors file; verify its digest, if it has one.

    Raises:
        CheckpointError: damaged, or the config in its metadata is not readable.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        state_dict = load_file(file)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{file}: damaged safetensors file of {file.stat().st_size:,} bytes ({error}); the download was cut off "
            "or altered, get it again"
        ) from error
    if DIGEST in metadata and metadata[DIGEST] != digest(state_dict):
        raise CheckpointError(
            f"{file}: damaged, the SHA-256 of its weights is not the recorded one; copy or download it again"
        )
    try:
        config = parse_json(metadata["config"]) if "config" in metadata else None
    except ValueError as error:
        raise CheckpointError(f"{file}: the config inside is not JSON ({error})") from error
    step, epoch = (_count(metadata.get(key, "")) for key in ("step", "epoch"))
    return Checkpoint(state_dict, file, step, epoch, _checked_config(config, file))


def read_torch(file: Path) -> Checkpoint:
    """Read a file of `torch.save`: a checkpoint of Lightning, or a dictionary of tensors.

    Raises:
        UnsafePickle: it would run code.
        CheckpointError: damaged, or without weights.
    """
    saved = read_torch_file(file, without=TRAINING_STATE)[0]
    if not isinstance(saved, dict):
        raise CheckpointError(f"{file}: expected a dictionary of weights, got a {type(saved).__name__}")
    weights = saved["state_dict"] if isinstance(saved.get("state_dict"), dict) else saved
    state_dict = {
        key: value for key, value in weights.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not state_dict:
        raise CheckpointError(
            f"{file}: no weights, neither under `state_dict` nor at the top; it holds "
            f"{', '.join(map(str, list(weights)[:10])) or 'nothing'}"
        )
    step, epoch = (_count(saved.get(key)) for key in ("global_step", "epoch"))
    config = saved.get("config")
    known = _checked_config(config, file) if isinstance(config, dict) else None
    return Checkpoint(state_dict, file, step, epoch, known)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors with their names, dtypes and shapes, in hexadecimal."""
    result = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        result.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        result.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()


def storable(state_dict: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return tensors as safetensors stores them: dense, on the CPU, without shared memory.

    Args:
        state_dict: tensors by key.
        dtype: floating-point dtype of matrices and kernels; None to keep theirs.

    Raises:
        CheckpointError: a value that is not a dense tensor.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state_dict.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(f"{key!r} must be a dense tensor, got a {type(value).__name__}")
        tensor = value.detach().cpu()
        if dtype is not None and tensor.is_floating_point() and tensor.ndim > 1:
            tensor = tensor.to(dtype)
        tensor = tensor.contiguous()
        memory = tensor.untyped_storage().data_ptr()
        tensors[key] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return tensors


def _count(value: Any) -> int | None:
    """Return a number of steps or epochs; None for anything else, such as 400 digits."""
    if isinstance(value, str) and len(value) <= 20 and value.isdecimal():
        value = int(value)
    return value if type(value) is int and value in INTEGERS else None


def _checked_config(config: Any, file: Path) -> dict[str, Any] | None:
    """Return the config inside a weight file if it is bounded; raise CheckpointError otherwise."""
    if config is None:
        return None
    try:
        return check_sections(config, f"{file}: the config inside")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
