"""Read and write weights: the original's .ckpt files and our safetensors; no weight file can run code.

What the file is counts, not what it is called. Tensors are views of the mapped file until they are copied into a
model, so a checkpoint's optimiser state is never read.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ldm.atomic_files import write_at
from ldm.checkpoints.config_files import check_extent, parse_json, read_foreign_config
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.file_type import HEAD, is_safetensors, is_torch_file, what_it_is
from ldm.checkpoints.model_size import shapes_of
from ldm.checkpoints.state_dict import (
    EMA,
    FIRST_STAGE,
    STYLE_EMA,
    fitting,
    has_first_stage,
    load_weights,
    plain,
    use_ema_weights,
    without_first_stage_file,
)
from ldm.checkpoints.torch_files import read_torch_file
from ldm.targets import ConfigError, canonical, check_config, instantiate_from_config, require_networks

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"  # the two files of our folders
DIFFUSION = "ldm.models.diffusion.LatentDiffusion"
TRAINING_STATE = ("optimizer_states", "lr_schedulers", "loops")  # of Lightning's checkpoints
DIGEST = "sha256"  # of the tensors, in the metadata of our safetensors
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass
class Checkpoint:
    """What a weight file holds.

    Attributes:
        state_dict: tensors by key, on the CPU.
        path: the file they came from.
        step: optimiser steps, where the file says.
        epoch: epochs, where the file says.
        config: the config in or beside the file (see `read_checkpoint`), where there is one.
        skipped: "where: name" of everything that was left out.
    """

    state_dict: dict[str, Tensor]
    path: Path
    step: int | None = None
    epoch: int | None = None
    config: dict[str, Any] | None = None
    skipped: list[str] = field(default_factory=list)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a weight file of any known kind, or a folder with one.

    The config is config.yaml beside model.safetensors, or NAME.yaml beside any other NAME, or else the one inside.

    Raises:
        CheckpointError: the file is missing, damaged or not a weight file; says what it is instead.
        UnsafePickle: it would run code.
    """
    file = _file_in(Path(path))
    try:
        reader = _reader_for(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}") from error
    checkpoint = reader(file)
    beside = file.with_name(CONFIG) if file.name == WEIGHTS else file.with_suffix(".yaml")
    if beside.is_file():
        checkpoint.config = read_config(beside)
    return checkpoint


def write_checkpoint(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, object] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write weights as safetensors, atomically: a reader sees the old file or the new one.

    Args:
        path: NAME.safetensors, which then carries the config inside; or a folder, which gets model.safetensors
            and config.yaml.
        state_dict: tensors by key; of those that share memory each gets its own copy.
        config: the YAML that builds the model.
        metadata: short facts such as step and epoch.
        dtype: store matrices and kernels in this float type. Vectors (noise schedule, norms, biases) keep
            theirs: they take no space and rounding hurts them most.

    Returns:
        The weight file.

    Raises:
        CheckpointError: a value is not a tensor, or `path` has another suffix.
        WriteError: the disk is full or refuses.
    """
    target = Path(path)
    as_folder = target.is_dir() or not target.suffix
    file = target / WEIGHTS if as_folder else target
    if file.suffix != ".safetensors":
        raise CheckpointError(
            f"{file}: weights are written as .safetensors; name the file so, or give a folder"
        )
    facts = {key: str(value) for key, value in (metadata or {}).items()}
    if config is not None and not as_folder:
        facts["config"] = json.dumps(plain(config))
    tensors = _storable(state_dict, dtype)
    facts[DIGEST] = _digest(tensors)
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_at(file, lambda partial: save_file(tensors, partial, metadata={"format": "pt", **facts}), size)
    if config is not None and as_folder:
        write_at(target / CONFIG, lambda partial: OmegaConf.save(OmegaConf.create(plain(config)), partial))
    return file


def read_config(config: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return the config in a YAML file, or `config` itself where it is one.

    Raises:
        CheckpointError: the file is missing, is no YAML, or asks for more than `${section.key}`.
    """
    if isinstance(config, Mapping):
        return {str(key): value for key, value in config.items()}
    if not Path(config).is_file():
        raise CheckpointError(f"{config}: there is no such config")
    try:
        return read_foreign_config(Path(config))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def build_model(
    config: Mapping[str, Any], checkpoint: Checkpoint, *, weights: Literal["ema", "raw"] = "ema"
) -> nn.Module:
    """Build the model that a config describes and give it a checkpoint's weights, ready for use.

    The averages themselves are left out, which halves the UNet's memory: the result is not for training on.

    Args:
        config: `{target, params}`, or a whole YAML with that under `model`.
        checkpoint: from `read_checkpoint`.
        weights: "ema" for the UNet's moving averages, "raw" for its last weights.

    Raises:
        ConfigError: a target is no network of this project, or a parameter is not what its class takes.
        CheckpointError: the weights do not fit, or the first stage is nowhere to be found.
    """
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights is {weights!r}; wanted 'ema' or 'raw'")
    found = checkpoint.state_dict
    try:
        check_extent(config, "the config")
        lean = for_use(config.get("model", config))
        require_networks(lean)
        lean = without_first_stage_file(lean, found)
        check_config(lean, "model")
        chosen = use_ema_weights(found) if weights == "ema" else found
        elsewhere = () if has_first_stage(found) else (FIRST_STAGE,)
        ignored = (EMA, STYLE_EMA, "loss.", *elsewhere)
        fitting(shapes_of(lean), chosen, ignore_prefixes=ignored)  # before a number is allocated
        model = instantiate_from_config(lean)
        load_weights(model, chosen, ignore_prefixes=ignored)
    except ConfigError as error:
        raise ConfigError(f"{checkpoint.path}: {error}") from error
    except CheckpointError as error:
        raise type(error)(f"{checkpoint.path}: {error}") from error
    return model.eval()


def for_use(model_config: Any) -> Any:
    """Return a model's config without what only training needs: a start file, averages of the weights, the losses."""
    if not isinstance(model_config, Mapping) or not isinstance(model_config.get("params"), Mapping | None):
        return model_config
    start = ("ckpt_path", "ignore_keys", "pretrained")
    params = {key: value for key, value in (model_config.get("params") or {}).items() if key not in start}
    first_stage = params.get("first_stage_config")
    if isinstance(first_stage, Mapping):
        params["first_stage_config"] = _without_loss(first_stage)
    if canonical(model_config.get("target")) == DIFFUSION:
        params["use_ema"] = False
    return _without_loss({**model_config, "params": params})


def _without_loss(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a first stage's config with nothing in place of its loss, which may be of a package that is not here."""
    params = config.get("params")
    if not isinstance(params, Mapping) or not params.get("lossconfig"):
        return dict(config)
    return {**config, "params": {**params, "lossconfig": {"target": "torch.nn.Identity"}}}


def _file_in(path: Path) -> Path:
    """Return the weight file that a path means: itself, or the one in the folder.

    Raises:
        CheckpointError: there is none, or there are several to choose from.
    """
    folder = path if path.is_dir() else path.parent
    candidates = sorted(file.name for file in folder.glob("*") if file.suffix in SUFFIXES)
    if path.is_dir():
        if WEIGHTS in candidates:
            return path / WEIGHTS
        if len(candidates) == 1:
            return path / candidates[0]
        problem = (
            f"holds several weight files and none is called {WEIGHTS}" if candidates else "holds no weights"
        )
        raise CheckpointError(
            f"{path}: {problem}; found {', '.join(candidates) or 'nothing'}. Name one of them"
        )
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file; the weights in {folder} are: {', '.join(candidates) or 'none'}. "
            "checkpoints/README.md says where published ones are to be had"
        )
    return path


def _reader_for(file: Path) -> Callable[[Path], Checkpoint]:
    """Return what reads a file, by its first bytes.

    Raises:
        CheckpointError: it is no weight file; says what it looks like.
    """
    with open(file, "rb") as opened:
        head = opened.read(HEAD)
    if is_safetensors(head):
        return _read_safetensors
    if is_torch_file(head):
        return _read_torch
    raise CheckpointError(f"{file}: {what_it_is(head)}")


def _read_safetensors(file: Path) -> Checkpoint:
    """Read a safetensors file."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            facts = opened.metadata() or {}
        state_dict = load_file(file)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{file}: damaged safetensors file of {file.stat().st_size:,} bytes ({error}); the download was cut off "
            "or altered, get it again"
        ) from error
    if DIGEST in facts and facts[DIGEST] != _digest(state_dict):
        raise CheckpointError(
            f"{file}: damaged: its weights are not those that were written (their SHA-256 differs); copy or download "
            "it again"
        )
    step, epoch = (int(facts[key]) if facts.get(key, "").isdecimal() else None for key in ("step", "epoch"))
    try:
        config = parse_json(facts["config"]) if "config" in facts else None
    except ValueError as error:
        raise CheckpointError(f"{file}: the config inside is not JSON ({error})") from error
    return Checkpoint(state_dict, file, step, epoch, _checked_config(config, file))


def _read_torch(file: Path) -> Checkpoint:
    """Read a file of torch.save: Lightning's, or a dictionary of tensors."""
    saved, skipped = read_torch_file(file, without=TRAINING_STATE)
    if not isinstance(saved, dict):
        raise CheckpointError(f"{file}: holds a {type(saved).__name__}; wanted a dictionary of weights")
    nested = isinstance(saved.get("state_dict"), dict)
    weights = saved["state_dict"] if nested else saved
    state_dict = {
        key: value for key, value in weights.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not state_dict:
        raise CheckpointError(
            f"{file}: no weights in it, neither under `state_dict` nor by themselves; it holds "
            f"{', '.join(map(str, list(weights)[:10])) or 'nothing'}"
        )
    skipped += [
        f"{'state_dict' if nested else 'top level'}: {key} ({type(value).__name__})"
        for key, value in weights.items()
        if key not in state_dict
    ]
    step, epoch = (saved[key] if type(saved.get(key)) is int else None for key in ("global_step", "epoch"))
    config = saved.get("config")
    known = _checked_config(config, file) if isinstance(config, dict) else None
    return Checkpoint(state_dict, file, step, epoch, known, skipped)


def _checked_config(config: Any, file: Path) -> dict[str, Any] | None:
    """Return the config inside a weight file, once it is known to be of bounded size."""
    if config is None:
        return None
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{file}: the config inside is a {type(config).__name__}, expected `model: {{target, params}}`"
        )
    try:
        check_extent(config, f"{file}: the config inside")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    return {str(key): value for key, value in config.items()}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors with their names, types and shapes, in hexadecimal."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _storable(state_dict: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors as safetensors takes them: dense, on the CPU, none sharing memory."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state_dict.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(f"{key!r} is a {type(value).__name__}; only dense tensors can be written")
        tensor = value.detach().cpu()
        if dtype is not None and tensor.is_floating_point() and tensor.ndim > 1:
            tensor = tensor.to(dtype)
        tensor = tensor.contiguous()
        memory = tensor.untyped_storage().data_ptr()
        tensors[key] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return tensors
