"""What would stop a run after it has begun, found before: settings that Lightning refuses late, unfitting weights."""

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
from ldm.training.parallel import ShardedStrategy


def check_validation_interval(trainer: pl.Trainer, batches: int) -> None:
    """Raise ConfigError if validation would never come.

    Args:
        trainer: of a training.
        batches: that the training set has for an epoch on each device.
    """
    limit, every = trainer.limit_train_batches, trainer.val_check_interval
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    validates = trainer.limit_val_batches is None or trainer.limit_val_batches > 0
    counted_by_epoch = trainer.check_val_every_n_epoch is not None
    if isinstance(every, int) and every > batches and validates and counted_by_epoch:
        raise ConfigError(
            f"lightning.trainer.val_check_interval is {every}, but an epoch has {batches} batches; lower it, or set "
            "lightning.trainer.check_val_every_n_epoch=null to count batches across epochs"
        )


def check_cached_latents(
    model: pl.LightningModule, first_stage: str | None, shape: tuple[int, int, int] | None = None
) -> None:
    """Raise ConfigError if the data's cached latents are of another first stage or size than the model's.

    Args:
        model: with `first_stage_model`, where it is a diffusion.
        first_stage: fingerprint of the one that the latents are of, None without any.
        shape: of the latents, (C, h, w).
    """
    if first_stage is None:
        return
    network = getattr(model, "first_stage_model", None)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"data.params.latents is for a diffusion; {type(model).__name__} wants the pictures"
        )
    C, side = getattr(model, "channels", None), getattr(model, "image_size", None)
    if shape is not None and C is not None and (shape[0] != C or side not in shape[1:]):
        raise ConfigError(
            f"data.params.latents: its latents are {list(shape)}, but the model's are [{C}, {side}, {side}] "
            "(model.params.channels, image_size); run scripts/cache_latents.py with this config again"
        )
    if (own := fingerprint(network)) != first_stage:
        raise ConfigError(
            f"data.params.latents: its latents are of another first stage ({first_stage}) than the model's ({own}); "
            "run scripts/cache_latents.py with this config again, or leave the key out"
        )


def load_first_stage(model: pl.LightningModule, checkpoint: Path) -> None:
    """Give a resumed model its first stage now: Lightning loads the checkpoint only after all checks."""
    network = getattr(model, "first_stage_model", None)
    if isinstance(network, nn.Module):
        state = load_saved(checkpoint, mmap=True)["state_dict"]
        load_weights(network, select_prefix(state, FIRST_STAGE))


def check_optimization(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Raise ConfigError for settings that only work where Lightning steps the one optimizer, on all gradients."""
    within = getattr(model, "step_in_backward", False)
    if within and (trainer.world_size > 1 or trainer.precision == "16-mixed"):
        raise ConfigError(
            "model.params.step_in_backward works in one process, in float32 or bfloat16: with several, or with scaled "
            "losses, gradients have to wait for each other; leave it out"
        )
    if model.automatic_optimization and not within:
        return
    reason = (
        "model.params.step_in_backward, which lets go of each gradient at once"
        if within
        else "a model with a discriminator, whose two optimizers take turns"
    )
    for name, unset in (("gradient_clip_val", (None, 0)), ("accumulate_grad_batches", (1,))):
        if (value := getattr(trainer, name)) not in unset:
            raise ConfigError(
                f"lightning.trainer.{name} is {value}, which does not work for {reason}; leave one of them out"
            )


def check_processes(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Raise ConfigError for a strategy with which several processes cannot train this model."""
    if isinstance(trainer.strategy, ShardedStrategy) and not is_overridden("configure_model", model):
        raise ConfigError(
            f"lightning.trainer.strategy=fsdp is for the diffusion, not for {type(model).__name__}; leave it out, or "
            "set it to ddp"
        )


def check_resumed_weights(model: pl.LightningModule, checkpoint: Path) -> None:
    """Raise CheckpointError unless a run's checkpoint can be read and its weights have the model's names and shapes."""
    content = load_saved(checkpoint)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{checkpoint}: not a checkpoint of a run; wanted one that main.py has written")
    try:
        fitting(model, content["state_dict"])
    except CheckpointError as error:
        raise CheckpointError(
            f"{checkpoint}: {error}; a resumed run keeps its model, so leave model.params as "
            f"{checkpoint.parent.parent / 'config.yaml'} has them"
        ) from error


def warn_of_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn of settings that have another value in a resumed run, which does not do what it looks like.

    Args:
        before: the config of the run.
        now: the same with what the command line sets.
    """
    if before["model"].get("base_learning_rate") != now["model"].get("base_learning_rate"):
        warnings.warn(
            "model.base_learning_rate has no effect on a resumed run: its optimizer goes on", stacklevel=2
        )
    size, new_size = _pictures_of_all(before), _pictures_of_all(now)
    if size != new_size:
        warnings.warn(
            f"devices x data.params.batch_size was {size} and is {new_size} now: the learning rate stays that of "
            f"{size}, and the epoch that was interrupted shows some pictures twice or not at all",
            stacklevel=2,
        )


def _pictures_of_all(config: Mapping[str, Any]) -> int:
    """Return the pictures that all devices together take in one batch, as far as the config says how many there are."""
    trainer = (config.get("lightning") or {}).get("trainer") or {}
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    devices = len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) else 1
    return (config["data"].get("params") or {}).get("batch_size", 1) * devices * nodes
