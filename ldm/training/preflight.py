"""Checks before a run: settings that Lightning would reject late, and weights that do not fit."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import nn

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.fingerprint import fingerprint
from ldm.checkpoints.state_dict import FIRST_STAGE, fitting, load_weights, select_prefix
from ldm.targets import ConfigError
from ldm.training.checkpointing import load_saved
from ldm.training.lightning_internals import ShardedStrategy


def check_validation_interval(trainer: pl.Trainer, batches: int) -> None:
    """Raise ConfigError if validation would never run.

    Args:
        trainer: trainer of the run.
        batches: training batches per epoch on each device.
    """
    limit, every = trainer.limit_train_batches, trainer.val_check_interval
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    validates = trainer.limit_val_batches is None or trainer.limit_val_batches > 0
    counted_by_epoch = trainer.check_val_every_n_epoch is not None
    if isinstance(every, int) and every > batches and validates and counted_by_epoch:
        whole = limit is None or (isinstance(limit, float) and limit == 1)  # 1 is one batch, 1.0 is all
        limited = "" if whole else f" (lightning.trainer.limit_train_batches is {limit})"
        raise ConfigError(
            f"lightning.trainer.val_check_interval is {every}, but an epoch has {batches} batches{limited}; lower it, "
            "or set lightning.trainer.check_val_every_n_epoch=null to count batches across epochs"
        )


def check_cached_latents(
    model: pl.LightningModule, first_stage: str | None, shape: tuple[int, int, int] | None = None
) -> None:
    """Raise ConfigError if the cached latents are of another first stage or size than the model's.

    Args:
        model: the model, with `first_stage_model` if it is a diffusion.
        first_stage: fingerprint of the first stage of the latents; None without cached latents.
        shape: shape (C, h, w) of the latents.
    """
    if first_stage is None:
        return
    network = getattr(model, "first_stage_model", None)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"data.params.latents requires a diffusion model; {type(model).__name__} needs the images"
        )
    C, side = getattr(model, "channels", None), getattr(model, "image_size", None)
    if shape is not None and C is not None and (shape[0] != C or side not in shape[1:]):
        raise ConfigError(
            f"data.params.latents: its latents are {list(shape)}, but the model's are [{C}, {side}, {side}] "
            "(model.params.channels, image_size); run scripts/cache_latents.py with this config again"
        )
    if (own := fingerprint(network)) != first_stage:
        raise ConfigError(
            f"data.params.latents: expected latents of the model's first stage ({own}), got those of {first_stage}; "
            "run scripts/cache_latents.py with this config again, or remove the key"
        )


def load_first_stage(model: pl.LightningModule, checkpoint: Path) -> None:
    """Give a resumed model its first stage now: Lightning loads the checkpoint only after all checks."""
    network = getattr(model, "first_stage_model", None)
    if isinstance(network, nn.Module):
        state = load_saved(checkpoint, mmap=True)["state_dict"]
        load_weights(network, select_prefix(state, FIRST_STAGE))


def check_optimization(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Raise ConfigError for settings that require automatic optimization with complete gradients."""
    within = getattr(getattr(model, "optimization", None), "step_in_backward", False)
    if within and (trainer.world_size > 1 or trainer.precision == "16-mixed"):
        raise ConfigError(
            "model.params.step_in_backward requires a single process and float32 or bfloat16: otherwise, gradients "
            "must be averaged or unscaled before the update; remove it"
        )
    if model.automatic_optimization and not within:
        return
    reason = (
        "model.params.step_in_backward, which frees each gradient immediately"
        if within
        else "a model with a discriminator, which has two optimizers"
    )
    for name, unset in (("gradient_clip_val", (None, 0)), ("accumulate_grad_batches", (1,))):
        if (value := getattr(trainer, name)) not in unset:
            raise ConfigError(
                f"lightning.trainer.{name}={value} is incompatible with {reason}; remove one of them"
            )


def check_processes(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Raise ConfigError for a strategy that does not support this model."""
    if isinstance(trainer.strategy, ShardedStrategy) and not is_overridden("configure_model", model):
        raise ConfigError(
            f"lightning.trainer.strategy=fsdp requires a diffusion model, got {type(model).__name__}; remove it or use "
            "ddp"
        )


def check_resumed_weights(model: pl.LightningModule, checkpoint: Path) -> None:
    """Raise CheckpointError unless a checkpoint is readable and its weights match the model."""
    content = load_saved(checkpoint)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{checkpoint}: not a checkpoint of a run; use one written by main.py")
    try:
        fitting(model, content["state_dict"])
    except CheckpointError as error:
        raise CheckpointError(
            f"{checkpoint}: {error}; a resumed run keeps its model, so set model.params as in "
            f"{checkpoint.parent.parent / 'config.yaml'}"
        ) from error


def warn_of_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn about changed settings that do not have the expected effect on a resumed run.

    Args:
        before: config of the run.
        now: config of the resumed run, with command-line overrides.
    """
    if before["model"].get("base_learning_rate") != now["model"].get("base_learning_rate"):
        warnings.warn(
            "model.base_learning_rate has no effect on a resumed run, which restores its optimizer",
            stacklevel=2,
        )
    size, new_size = _global_batch_size(before), _global_batch_size(now)
    if size != new_size:
        warnings.warn(
            f"devices x data.params.batch_size changed from {size} to {new_size}: the learning rate stays that of "
            f"{size}, and the interrupted epoch repeats or skips some images",
            stacklevel=2,
        )


def _global_batch_size(config: Mapping[str, Any]) -> int:
    """Return the global batch size, assuming one device if the config does not give a number."""
    trainer = (config.get("lightning") or {}).get("trainer") or {}
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    devices = len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) else 1
    return (config["data"].get("params") or {}).get("batch_size", 1) * devices * nodes
