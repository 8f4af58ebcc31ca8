"""Stop at the first loss that is not a finite number, before it reaches weights or a checkpoint."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


class NotFiniteError(RuntimeError):
    """A loss or a weight is infinite or not a number; the message says at which step, and which pictures it saw."""


class FiniteLossGuard(pl.Callback):
    """Raise NotFiniteError before a loss that is not finite is used for a step."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the names of the pictures."""
        names = batch.get("name") if isinstance(batch, Mapping) else None
        self._names = [str(name) for name in names] if names is not None else []

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Check the loss; hooked before the backward pass, the one place that automatic and manual steps share."""
        if not torch.isfinite(loss.detach()).all():
            raise NotFiniteError(f"the loss is {loss.detach().flatten()[0].item()} at {self._where(trainer)}")

    def check_weights(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise NotFiniteError if a trained weight is not finite: a finite loss can have an infinite gradient."""
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter.detach()).all():
                raise NotFiniteError(f"the weight {name} is not finite after {self._where(trainer)}")

    def _where(self, trainer: pl.Trainer) -> str:
        names = f", with the pictures {', '.join(self._names)}" if self._names else ""
        return f"step {trainer.fit_loop.total_batch_idx} (epoch {trainer.current_epoch}){names}"
