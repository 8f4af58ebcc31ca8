"""Train for a given time, with the learning rate annealed to zero as it ends."""

import math
import time
from typing import Any

import pytorch_lightning as pl


class TimeBudget(pl.Callback):
    """Stop after a number of minutes, with a learning rate that follows the clock instead of the step.

    For machines of unknown speed, and leases or cluster slots of fixed length. The peak rate is multiplied by
    min(1, n / warmup_steps) * (1 + cos(pi t / T)) / 2 after n steps and t of T minutes; it replaces the
    schedule of `anneal_steps`. The time that earlier parts of a resumed run took counts.

    Args:
        minutes: T, without start-up, with validation.
        warmup_steps: length of the linear warmup.

    Raises:
        ValueError: a number out of range, or a run in several processes, whose clocks differ.
    """

    def __init__(self, minutes: float, warmup_steps: int = 50) -> None:
        if not 0 < minutes < math.inf or warmup_steps < 0:
            raise ValueError(
                f"TimeBudget: minutes must be above 0 and warmup_steps at least 0, got {minutes} and {warmup_steps}"
            )
        self.minutes, self.warmup_steps = minutes, warmup_steps
        self._before, self._began = 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        if trainer.world_size > 1:
            raise ValueError(f"TimeBudget works in one process, got {trainer.world_size}; use anneal_steps")
        self._began = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the learning rate of the step."""
        factor = self.factor(trainer.global_step, self.elapsed())
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group.get("initial_lr", pl_module.learning_rate)

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Stop when the time is over."""
        if self.elapsed() >= 60 * self.minutes:
            trainer.should_stop = True

    def elapsed(self) -> float:
        """Return the seconds of training, those before a resume included."""
        return self._before + (time.monotonic() - self._began if self._began else 0.0)

    def factor(self, step: int, seconds: float) -> float:
        """Return the fraction of the peak learning rate after `step` steps and `seconds`."""
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return rise * (1 + math.cos(math.pi * min(seconds / (60 * self.minutes), 1))) / 2

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds of training."""
        return {"seconds": self.elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the clock of a resumed run."""
        self._before = float(state_dict["seconds"])
