"""Find weights and their config, build the model, and say what its regions are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from omegaconf import OmegaConf

from ldm.checkpoint import CheckpointError, build_model, has_ema, read_checkpoint
from ldm.data.labels import CELEBAMASK_HQ, CITYSCAPES_TRAIN, LABEL_SETS, LabelSet

if TYPE_CHECKING:
    from ldm.models.diffusion import LatentDiffusion

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
Weights = Literal["ema", "raw"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


def load_pretrained(
    path: str | Path,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    weights: Weights | None = None,
    device: str | torch.device | None = None,
) -> tuple[LatentDiffusion, LabelSet, tuple[int, int]]:
    """Return a model, its regions and the (H, W) it was trained at; takes what `FacePipeline.from_pretrained` takes."""
    place = usable_device(device)
    file = _weight_file(_local(path))
    checkpoint = read_checkpoint(file)
    found = _read_config(config) if config is not None else checkpoint.config or _config_near(file)
    if weights is None:
        weights = "ema" if has_ema(checkpoint.state_dict) else "raw"
    model = build_model(found, checkpoint, weights=weights)
    from ldm.models.diffusion import LatentDiffusion  # and Lightning, seconds of imports

    if not isinstance(model, LatentDiffusion):
        raise CheckpointError(
            f"{file}: holds a {type(model).__name__}; wanted the weights of a LatentDiffusion"
        )
    size = _trained_size(found, model)
    return model.to(place), _label_set(found, model), size


def usable_device(wanted: str | torch.device | None = None) -> torch.device:
    """Return the device that is asked for; without one CUDA where there is it, else Apple's MPS, else the CPU.

    Raises:
        ValueError: torch cannot use it here.
    """
    if wanted is not None:
        try:
            return torch.empty(0, device=wanted).device
        except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device {str(wanted)!r} cannot be used here: {reason}; try cpu, or leave it out"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def working_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return what the networks compute in: for "auto" bfloat16 where the device has it in hardware, else float32.

    On a CPU float32 is the default: only some have units for anything else, and torch does not say which.

    Raises:
        ValueError: an unknown name.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"unknown precision {precision!r}; there are {', '.join(get_args(Precision))}")
    if precision != "auto":
        return getattr(torch, precision)
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def compile_step(model: LatentDiffusion) -> None:
    """Compile the UNet's step; on CUDA also capture it as a graph, once per shape."""
    mode = "reduce-overhead" if model.device.type == "cuda" else "default"
    model.unet.denoise = torch.compile(model.unet.denoise, mode=mode, dynamic=False)


def _local(path: str | Path) -> Path:
    """Return `path`, or the folder of the Hugging Face hub's model that it names as owner/name."""
    place = Path(path)
    if place.exists() or not HUB_NAME.fullmatch(str(path)):
        return place
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return place  # who never installed it means a path, and is told that there is none
    try:
        return Path(snapshot_download(str(path), allow_patterns=["*.safetensors", "*.yaml"]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: neither a file or folder here nor a model that the hub gave ({reason}); check the name"
        ) from error


def _weight_file(path: Path) -> Path:
    """Return the weights of a run folder, or `path` itself."""
    last = path / "checkpoints" / "last.ckpt"
    return last if last.is_file() else path


def _config_near(file: Path) -> dict[str, Any]:
    """Return the config of the run that a checkpoint belongs to."""
    run_config = file.parent.parent / "config.yaml"
    if file.parent.name == "checkpoints" and run_config.is_file():
        return _read_config(run_config)
    raise CheckpointError(
        f"{file}: no config beside it; name the YAML that the model was trained with "
        "(for published weights configs/latent-diffusion/celebamask-hq.yaml) by --config, or config= in Python"
    )


def _read_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return {str(key): value for key, value in config.items()}
    if not Path(config).is_file():
        raise CheckpointError(f"{config}: there is no such config")
    read = OmegaConf.load(config)
    # Only the model is built from it; a `???` elsewhere is no concern.
    return {
        str(key): OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in read.items()
    }


def _label_set(config: Mapping[str, Any], model: LatentDiffusion) -> LabelSet:
    """Return the label set of the training data, or else one with as many regions as the model knows."""
    train = _training_data(config)
    if (train.get("params") or {}).get("train_ids") and model.num_regions == len(CITYSCAPES_TRAIN):
        return CITYSCAPES_TRAIN  # CelebAMask-HQ has as many regions
    for label_set in LABEL_SETS.values():
        if len(label_set) == model.num_regions:
            return label_set
    R = model.num_regions
    names = tuple(f"region_{i}" for i in range(R))
    colours = (CELEBAMASK_HQ.palette * R)[:R]
    return LabelSet(f"{R} regions", names, colours, tuple(range(R)))


def _training_data(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `{target, params}` of the training set, empty where the config does not say."""
    data: Any = config.get("data") or {}
    return (data.get("params") or {}).get("train") or {}


def _trained_size(config: Mapping[str, Any], model: LatentDiffusion) -> tuple[int, int]:
    """Return the (H, W) of the training data, or the model's own where the config does not say."""
    train = _training_data(config)
    size = (train.get("params") or {}).get("size", model.image_size * model.first_stage_model.factor)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
