"""Load a diffusion model from its files and determine its label set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import build_model
from ldm.checkpoints.locate import find_model, usable_device
from ldm.checkpoints.state_dict import has_ema
from ldm.data.images import as_size
from ldm.data.labels import CELEBAMASK_HQ, CITYSCAPES_TRAIN, LABEL_SETS, LabelSet

if TYPE_CHECKING:
    from ldm.models.diffusion import LatentDiffusion

Weights = Literal["ema", "raw"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS = ("float32", "bfloat16", "float16")  # what "auto" resolves to, or is given


class Pretrained(NamedTuple):
    """A loaded model.

    Attributes:
        model: in evaluation mode, on its device.
        label_set: names of its regions.
        size: (H, W) of its training images.
        config: content of its config.yaml.
    """

    model: LatentDiffusion
    label_set: LabelSet
    size: tuple[int, int]
    config: dict[str, Any]


def load_pretrained(
    path: str | Path,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    weights: Weights | None = None,
    device: str | torch.device | None = None,
) -> Pretrained:
    """Load a model; arguments as in `FacePipeline.from_pretrained`."""
    place = usable_device(device)
    checkpoint, found = find_model(path, config)
    if weights is None:
        weights = "ema" if has_ema(checkpoint.state_dict) else "raw"
    model = build_model(found, checkpoint, weights=weights)
    from ldm.models.diffusion import LatentDiffusion  # imports Lightning, which takes seconds

    if not isinstance(model, LatentDiffusion):
        raise CheckpointError(
            f"{checkpoint.path}: expected the weights of a LatentDiffusion, got a {type(model).__name__}"
        )
    size = _trained_size(found, model)
    return Pretrained(model.to(place), label_set_of(found, model), size, found)


def weights_in(path: str | Path, config: str | Path | Mapping[str, Any] | None = None) -> tuple[Weights, ...]:
    """Return the kinds of UNet weights in a checkpoint: ("ema", "raw") or ("raw",).

    Raises:
        CheckpointError: missing weights or config.
    """
    checkpoint, _ = find_model(path, config)
    return ("ema", "raw") if has_ema(checkpoint.state_dict) else ("raw",)


def check_precision(precision: str) -> None:
    """Raise ValueError for an unknown precision."""
    if precision not in get_args(Precision):
        raise ValueError(f"unknown precision {precision!r}; available: {', '.join(get_args(Precision))}")


def working_dtype(precision: str, model: LatentDiffusion) -> torch.dtype:
    """Resolve a precision; "auto" is bfloat16 if the device computes in it natively and is faster, else float32.

    Raises:
        ValueError: an unknown name.
    """
    check_precision(precision)
    if precision != "auto":
        return getattr(torch, precision)
    return torch.bfloat16 if model.bfloat16_is_faster() else torch.float32


def compile_step(model: LatentDiffusion, backend: str = "inductor") -> None:
    """Compile `UNet.denoise`; on CUDA also capture it as a CUDA graph, once per shape."""
    mode = "reduce-overhead" if model.device.type == "cuda" else "default"
    compiled = torch.compile(model.unet.denoise, backend=backend, mode=mode, dynamic=False)

    def denoise(*arguments: Any, **options: Any) -> torch.Tensor:
        return compiled(
            *arguments, **options
        ).clone()  # the next replay of a CUDA graph overwrites its output

    model.unet.denoise = denoise


def label_set_of(config: Mapping[str, Any], model: LatentDiffusion) -> LabelSet:
    """Return the label set of the training data, or one with the model's number of regions."""
    if _training_params(config).get("train_ids") and model.num_regions == len(CITYSCAPES_TRAIN):
        return CITYSCAPES_TRAIN  # CelebAMask-HQ has the same number of regions
    for label_set in LABEL_SETS.values():
        if len(label_set) == model.num_regions:
            return label_set
    R = model.num_regions
    names = tuple(f"region_{i}" for i in range(R))
    colors = (CELEBAMASK_HQ.palette * R)[:R]
    return LabelSet(f"{R} regions", names, colors, tuple(range(R)))


def _training_params(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the params of the training set, which is not built; empty if the config has none."""
    here: Any = config
    for key in ("data", "params", "train", "params"):
        here = here.get(key) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else {}


def _trained_size(config: Mapping[str, Any], model: LatentDiffusion) -> tuple[int, int]:
    """Return the (H, W) of the training data, or the model's own size if the config has none."""
    size = _training_params(config).get("size", model.image_size * model.first_stage_model.factor)
    try:
        return as_size(size)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"in the config of the weights, data.params.train.params.{error}") from error
