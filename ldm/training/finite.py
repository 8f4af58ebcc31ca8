"""Stop at the first non-finite loss, before it reaches weights or a checkpoint."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


class NotFiniteError(RuntimeError):
    """A loss or a weight is NaN or infinite; the message gives the step and the names of the batch."""


class FiniteLossGuard(pl.Callback):
    """Raise NotFiniteError before a non-finite loss is used for an update."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Store the sample names of the batch."""
        names = batch.get("name") if isinstance(batch, Mapping) else None
        self._names = [str(name) for name in names] if names is not None else []

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Check the loss before the backward pass, a hook of both automatic and manual optimisation."""
        if not torch.isfinite(loss.detach()).all():
            raise NotFiniteError(f"the loss is {loss.detach().flatten()[0].item()} at {self._where(trainer)}")

    def check_weights(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise NotFiniteError if a trained weight is not finite: a finite loss can have an infinite gradient."""
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter.detach()).all():
                raise NotFiniteError(f"the weight {name} is not finite after {self._where(trainer)}")

    def _where(self, trainer: pl.Trainer) -> str:
        names = f", images {', '.join(self._names)}" if self._names else ""
        return f"step {trainer.fit_loop.total_batch_idx} (epoch {trainer.current_epoch}){names}"
