"""Stop at a non-finite loss before it reaches a checkpoint."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

INTERVAL = 10  # steps between two looks at the losses on a GPU


class NotFiniteError(RuntimeError):
    """A loss or a weight is NaN or infinite; the message gives the step and the names of the batch."""


class _Step(NamedTuple):
    """A step whose loss has not been checked."""

    place: str  # step, epoch and sample names
    loss: Tensor


class FiniteLossGuard(pl.Callback):
    """Raise NotFiniteError for a non-finite loss, with the step and the samples of its batch.

    Checking a loss synchronizes with the device. On a CPU, each loss is checked before its backward pass, so
    a non-finite one never reaches the weights. On other devices, the losses of several steps are checked
    together, and before each validation, checkpoint and EMA snapshot, so a non-finite one never reaches a
    file.

    Args:
        every_n_steps: steps between checks; None for 1 on a CPU and `INTERVAL` on other devices.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self._names: list[str] = []
        self._pending: list[_Step] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Store the sample names of the batch."""
        names = batch.get("name") if isinstance(batch, Mapping) else None
        self._names = [str(name) for name in names] if names is not None else []

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Note the loss before the backward pass, a hook of both automatic and manual optimization."""
        self._pending.append(_Step(self._where(trainer), loss.detach().clone()))
        every = self.every_n_steps or (1 if loss.device.type == "cpu" else INTERVAL)
        if len(self._pending) >= every:
            self.check_losses()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the losses so far."""
        self.check_losses()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last losses."""
        self.check_losses()

    def check_losses(self) -> None:
        """Raise NotFiniteError for the first non-finite loss since the last look."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        for step, loss in zip(pending, torch.stack([step.loss for step in pending]).tolist(), strict=True):
            if not math.isfinite(loss):
                raise NotFiniteError(f"the loss is {loss} at {step.place}")

    def check_weights(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise NotFiniteError if a loss or a trained weight is not finite.

        A finite loss can have an infinite gradient.
        """
        self.check_losses()
        trained = {name: p.detach() for name, p in pl_module.named_parameters() if p.requires_grad}
        for name, finite in zip(trained, _finite(list(trained.values())), strict=True):
            if not finite:
                raise NotFiniteError(f"the weight {name} is not finite after {self._where(trainer)}")

    def _where(self, trainer: pl.Trainer) -> str:
        names = f", images {', '.join(self._names)}" if self._names else ""
        return f"step {trainer.fit_loop.total_batch_idx} (epoch {trainer.current_epoch}){names}"


def check_before_writing(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Raise NotFiniteError if a loss or a trained weight is not finite, in a Trainer with a `FiniteLossGuard`."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FiniteLossGuard):
            callback.check_weights(trainer, pl_module)


def _finite(tensors: list[Tensor]) -> list[bool]:
    """Return whether all values of each tensor are finite; waits for the device once."""
    if not tensors:
        return []
    found = [torch.isfinite(tensor).all() for tensor in tensors]
    return torch.stack([one.full_tensor() if isinstance(one, DTensor) else one for one in found]).tolist()
