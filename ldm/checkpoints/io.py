"""Read and write checkpoints: .ckpt and similar files of torch, and our safetensors with a config.

The format is determined by the contents, not by the suffix. Reading runs no code of the file.
"""

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from ldm.atomic_files import write_at
from ldm.checkpoints.averages import has_ema, has_raw, use_ema_weights
from ldm.checkpoints.config_files import check_extent, read_foreign_config
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.file_type import HEAD, SUFFIXES, describe, is_safetensors, is_torch_file, special_file
from ldm.checkpoints.formats import DIGEST, Checkpoint, digest, read_safetensors, read_torch, storable
from ldm.checkpoints.key_names import EMA, FIRST_STAGE, STYLE_EMA, unwrap
from ldm.checkpoints.model_size import shapes_of
from ldm.checkpoints.state_dict import fitting, has_first_stage, load_weights, plain, without_first_stage_file
from ldm.targets import ConfigError, canonical, check_config, instantiate_from_config, require_networks

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"  # the files of our folders
DIFFUSION = "ldm.models.diffusion.LatentDiffusion"


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a weight file, or the one in a folder.

    Key prefixes of DataParallel, torch.compile and similar wrappers are removed, with a warning. The config
    is config.yaml beside model.safetensors, NAME.yaml beside any other NAME, or the one inside the file.

    Raises:
        CheckpointError: missing, damaged or not a weight file; says what it is instead.
        UnsafePickle: it would run code.
    """
    try:
        file = _file_in(Path(path))
        reader = _reader_for(file)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    checkpoint = reader(file)
    checkpoint.state_dict, removed = unwrap(checkpoint.state_dict)
    if removed:
        prefixes = ", ".join(removed)
        warnings.warn(f"{file}: removed {prefixes} from the keys, saved from a wrapped model", stacklevel=2)
    beside = file.with_name(CONFIG) if file.name == WEIGHTS else file.with_suffix(".yaml")
    if beside.exists():
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
    """Write weights as safetensors, atomically.

    Args:
        path: NAME.safetensors, with the config in its metadata; or a folder, for model.safetensors and
            config.yaml.
        state_dict: tensors by key; those that share memory are written separately.
        config: YAML of the model.
        metadata: other metadata, such as step and epoch.
        dtype: floating-point dtype of matrices and kernels. Vectors (noise schedule, norms, biases) keep
            theirs: they are small and rounding hurts them most.

    Returns:
        The weight file.

    Raises:
        CheckpointError: a value that is not a tensor, or another suffix.
        WriteError: the file cannot be written.
    """
    target = Path(path)
    as_folder = target.is_dir() or not target.suffix
    file = target / WEIGHTS if as_folder else target
    if file.suffix != ".safetensors":
        raise CheckpointError(f"{file}: expected a name ending in .safetensors, or a folder")
    entries = {key: str(value) for key, value in (metadata or {}).items()}
    if config is not None and not as_folder:
        entries["config"] = json.dumps(plain(config))
    tensors = storable(state_dict, dtype)
    entries[DIGEST] = digest(tensors)
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_at(file, lambda partial: save_file(tensors, partial, metadata={"format": "pt", **entries}), size)
    if config is not None and as_folder:
        write_at(target / CONFIG, lambda partial: OmegaConf.save(OmegaConf.create(plain(config)), partial))
    return file


def read_config(config: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Read a YAML that came with weights; a mapping is returned as it is.

    Raises:
        CheckpointError: see `read_foreign_config`.
    """
    if isinstance(config, Mapping):
        return {str(key): value for key, value in config.items()}
    try:
        return read_foreign_config(Path(config))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def build_model(
    config: Mapping[str, Any], checkpoint: Checkpoint, *, weights: Literal["ema", "raw"] = "ema"
) -> nn.Module:
    """Build a model for inference, in evaluation mode.

    EMAs are not part of it, which halves the memory of the UNet, so training cannot continue from it.

    Args:
        config: `{target, params}`, or a whole YAML with these under `model`.
        checkpoint: from `read_checkpoint`.
        weights: "ema" for the EMA weights of the UNet, "raw" for its last weights.

    Raises:
        ConfigError: a target that is not one of our networks, or invalid parameters.
        CheckpointError: weights that do not fit, or no first stage.
    """
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights must be 'ema' or 'raw', got {weights!r}")
    found = checkpoint.state_dict
    try:
        check_extent(config, "the config")
        lean = for_use(config.get("model", config))
        require_networks(lean)
        check_config(lean, "model")
        if weights == "raw" and has_ema(found) and not has_raw(found):
            raise CheckpointError('the file has only EMA weights (model_ema.*); use weights="ema"')
        lean = without_first_stage_file(lean, found)
        chosen = use_ema_weights(found) if weights == "ema" else found
        elsewhere = () if has_first_stage(found) else (FIRST_STAGE,)
        ignored = (EMA, STYLE_EMA, "loss.", *elsewhere)
        fitting(shapes_of(lean), chosen, ignore_prefixes=ignored)  # before memory is allocated
        model = instantiate_from_config(lean)
        load_weights(model, chosen, ignore_prefixes=ignored)
    except ConfigError as error:
        raise ConfigError(f"{checkpoint.path}: {error}") from error
    except CheckpointError as error:
        raise type(error)(f"{checkpoint.path}: {error}") from error
    except ValueError as error:  # of a constructor: values that contradict each other
        raise ConfigError(f"{checkpoint.path}: {error}") from error
    return model.eval()


def for_use(model_config: Any) -> Any:
    """Remove from a model's config what only training needs: initial weights, EMAs and losses."""
    if not isinstance(model_config, Mapping) or not isinstance(model_config.get("params"), Mapping | None):
        return model_config
    start = ("ckpt_path", "ignore_keys", "pretrained")
    params = {key: value for key, value in (model_config.get("params") or {}).items() if key not in start}
    first_stage = params.get("first_stage_config")
    if isinstance(first_stage, Mapping):
        params["first_stage_config"] = _without_loss(first_stage)
    if canonical(model_config.get("target")) == DIFFUSION:
        params["use_ema"] = False
        params.pop("ema_style_encoder", None)  # has no effect then
    return _without_loss({**model_config, "params": params})


def _without_loss(config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the loss of a first stage, which may belong to a package that is not installed."""
    params = config.get("params")
    if not isinstance(params, Mapping) or not params.get("lossconfig"):
        return dict(config)
    return {**config, "params": {**params, "lossconfig": {"target": "torch.nn.Identity"}}}


def _file_in(path: Path) -> Path:
    """Return the weight file at a path, or in a folder.

    Raises:
        CheckpointError: there is none or more than one, or it is not a regular file.
    """
    folder = path if path.is_dir() else path.parent
    candidates = sorted(file.name for file in folder.glob("*") if file.suffix in SUFFIXES)
    if path.is_dir():
        if WEIGHTS in candidates:
            return _regular(path / WEIGHTS)
        if len(candidates) == 1:
            return _regular(path / candidates[0])
        problem = f"several weight files, but no {WEIGHTS}" if candidates else "no weights"
        found = ", ".join(candidates) or "nothing"
        raise CheckpointError(f"{path}: the folder holds {problem}; found {found}; name one of them")
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file; weights in {folder}: {', '.join(candidates) or 'none'}; "
            "checkpoints/README.md says where to get published ones"
        )
    return _regular(path)


def _regular(file: Path) -> Path:
    if (kind := special_file(file)) is not None:
        raise CheckpointError(f"{file} is {kind}, expected a weight file; copy its contents to a file first")
    return file


def _reader_for(file: Path) -> Callable[[Path], Checkpoint]:
    """Return the reader of a file's format.

    Raises:
        CheckpointError: not a weight file; says what it looks like.
    """
    with open(file, "rb") as opened:
        head = opened.read(HEAD)
    if is_safetensors(head):
        return read_safetensors
    if is_torch_file(head):
        return read_torch
    raise CheckpointError(f"{file}: {describe(head)}")
