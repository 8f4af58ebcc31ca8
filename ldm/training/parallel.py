"""Strategies for training with several processes (`lightning.trainer.strategy`)."""

from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from ldm.modules.ema import EMA
from ldm.training.lightning_internals import ShardedStrategy, ignore_in_broadcasts


def strategy_named(name: Any) -> Any:
    """Return the Trainer's strategy for `lightning.trainer.strategy`.

    "fsdp" shards the weights. "ddp_gloo" is "ddp" over gloo, with which several processes may use one GPU;
    NCCL refuses that. Other names are Lightning's.
    """
    if name == "fsdp":
        return ShardedStrategy()
    return DDPStrategy(process_group_backend="gloo") if name == "ddp_gloo" else name


def keep_averages_local(model: nn.Module) -> None:
    """Exclude the EMAs from the buffers that data-parallel training broadcasts at every step.

    Each process updates them with the same weights, so they stay equal.
    """
    averages = [(name, part) for name, part in model.named_modules() if isinstance(part, EMA)]
    ignore_in_broadcasts(
        model, [f"{name}.{buffer}" for name, part in averages for buffer, _ in part.named_buffers()]
    )
