"""Progress of a run, as a bar or as log lines: images per second, data waiting time, and ETA."""

import math
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import Tensor

from ldm.training.lightning_internals import batches_done

WINDOW = 50  # batches of the moving average of images per second


class TrainingProgress(TQDMProgressBar):
    """Lightning's progress bar with images per second and ETA of the run; log lines without a terminal.

    Args:
        seconds: interval between log lines.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.lines = not sys.stdout.isatty()
        super().__init__(refresh_rate=0 if self.lines else 1)
        self.seconds = seconds
        # Per batch: total seconds, seconds waiting for data, images.
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=WINDOW)
        self._began = self._batch_began = self._printed = self._waited = 0.0
        self._first = 0
        self._printed_step = -1

    def on_train_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Start the clock."""
        super().on_train_start(trainer, *arguments)
        self._began = self._batch_began = self._printed = time.monotonic()
        self._first = batches_done(trainer)

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Record the waiting time for the batch."""
        self._waited = time.monotonic() - self._batch_began

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, including its loading time; print a line if it is due."""
        now = time.monotonic()
        images = _count_images(batch) * trainer.world_size
        self._recent.append((now - self._batch_began, self._waited, images))
        self._batch_began = now
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        done = batches_done(trainer)
        if (
            self.lines
            and trainer.is_global_zero
            and (now - self._printed >= self.seconds or done == self._first + 1)
        ):
            self._printed = now
            self._print_line(trainer, pl_module, outputs)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the validation metrics, and exclude validation from the time of the next batch."""
        super().on_validation_end(trainer, pl_module)
        self._batch_began = time.monotonic()
        if (
            self.lines
            and trainer.is_global_zero
            and not trainer.sanity_checking
            and trainer.state.fn == "fit"
        ):
            print(
                f"step {batches_done(trainer)}  validated  {_losses(trainer.callback_metrics, 'val')}",
                flush=True,
            )

    def on_train_end(self, *arguments: Any) -> None:
        """Print the line of the last step, unless it was printed."""
        super().on_train_end(*arguments)
        unprinted = self._printed_step != batches_done(self.trainer)
        if self.lines and self.trainer.is_global_zero and self._recent and unprinted:
            self._print_line(self.trainer, self.trainer.lightning_module, None)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the metrics of the progress bar."""
        metrics = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        if self._recent:
            metrics |= {
                "images/s": f"{self.images_per_second():.1f}",
                "waiting for data": f"{self.share_waiting():.0%}",
                "ETA": clock(self.seconds_left(trainer)),
            }
        return metrics

    def images_per_second(self) -> float:
        """Return the rate over the last batches, summed over devices."""
        return sum(images for _, _, images in self._recent) / max(self._seconds(), 1e-9)

    def share_waiting(self) -> float:
        """Return the fraction of time spent waiting for data over the last batches, in [0, 1]."""
        return sum(waited for _, waited, _ in self._recent) / max(self._seconds(), 1e-9)

    def _seconds(self) -> float:
        return sum(duration for duration, _, _ in self._recent)

    def seconds_left(self, trainer: pl.Trainer) -> float:
        """Return the estimated seconds left, including validation and preview grids; inf if unknown."""
        done = batches_done(trainer)
        pace = (time.monotonic() - self._began) / max(done - self._first, 1)
        return pace * (total_batches(trainer) - done)

    def _print_line(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any) -> None:
        total, done = total_batches(trainer), batches_done(trainer)
        self._printed_step = done
        print(
            f"step {done}/{'?' if math.isinf(total) else int(total)}  epoch {trainer.current_epoch}  "
            f"{_losses(trainer.callback_metrics, 'train') or _losses(outputs, 'loss')}  "
            f"{self.images_per_second():.1f} images/s, {self.share_waiting():.0%} of the time waiting for data  "
            f"elapsed {clock(time.monotonic() - self._began)}  "
            f"ETA {clock(self.seconds_left(trainer))}",
            flush=True,
        )


def total_batches(trainer: pl.Trainer) -> float:
    """Return the total number of batches of the run; inf if unlimited."""
    done = batches_done(trainer)
    by_epochs = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        by_epochs = trainer.max_epochs * trainer.num_training_batches
    by_steps = math.inf
    if trainer.max_steps >= 0:
        # A model with a discriminator takes two optimizer steps per batch, gradient accumulation less than one.
        per_batch = (
            trainer.global_step / done
            if done and trainer.global_step
            else 1 / trainer.accumulate_grad_batches
        )
        by_steps = done + math.ceil((trainer.max_steps - trainer.global_step) / per_batch)
    return min(by_epochs, by_steps)


def clock(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _count_images(batch: Any) -> int:
    """Return the number of images in a batch: the length of its first tensor."""
    values = (
        batch.values()
        if isinstance(batch, Mapping)
        else batch
        if isinstance(batch, list | tuple)
        else [batch]
    )
    return next((len(value) for value in values if isinstance(value, Tensor) and value.ndim), 1)


def _losses(metrics: Any, prefix: str) -> str:
    """Return the metrics whose name starts with `prefix`, as text."""
    if not isinstance(metrics, Mapping):
        return ""
    chosen = {k: v for k, v in metrics.items() if str(k).startswith(prefix) and not str(k).endswith("_epoch")}
    return "  ".join(f"{name} {float(value):.4g}" for name, value in chosen.items())
