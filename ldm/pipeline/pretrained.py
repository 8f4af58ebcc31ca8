"""Build a diffusion from its files, and say what its regions are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import build_model
from ldm.checkpoints.locate import find_model, usable_device
from ldm.checkpoints.state_dict import has_ema
from ldm.data.labels import CELEBAMASK_HQ, CITYSCAPES_TRAIN, LABEL_SETS, LabelSet

if TYPE_CHECKING:
    from ldm.models.diffusion import LatentDiffusion

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
    checkpoint, found = find_model(path, config)
    if weights is None:
        weights = "ema" if has_ema(checkpoint.state_dict) else "raw"
    model = build_model(found, checkpoint, weights=weights)
    from ldm.models.diffusion import LatentDiffusion  # and Lightning, seconds of imports

    if not isinstance(model, LatentDiffusion):
        raise CheckpointError(
            f"{checkpoint.path}: holds a {type(model).__name__}; wanted the weights of a LatentDiffusion"
        )
    size = _trained_size(found, model)
    return model.to(place), label_set_of(found, model), size


def weights_in(path: str | Path, config: str | Path | Mapping[str, Any] | None = None) -> tuple[Weights, ...]:
    """Return which weights of the UNet a model's file holds: ("ema", "raw"), or ("raw",) alone.

    Raises:
        CheckpointError: no weights, or no config.
    """
    checkpoint, _ = find_model(path, config)
    return ("ema", "raw") if has_ema(checkpoint.state_dict) else ("raw",)


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
    compiled = torch.compile(model.unet.denoise, mode=mode, dynamic=False)

    def denoise(*arguments: Any, **options: Any) -> torch.Tensor:
        return compiled(*arguments, **options).clone()  # the next run of a CUDA graph overwrites its result

    model.unet.denoise = denoise


def label_set_of(config: Mapping[str, Any], model: LatentDiffusion) -> LabelSet:
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
