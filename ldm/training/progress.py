"""Progress of a run: a bar in a terminal, lines in a log file; images per second, waiting, and the time left."""

import math
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import Tensor

from ldm.training.checkpointing import batches_done

WINDOW = 50  # batches that the images per second are averaged over


class TrainingProgress(TQDMProgressBar):
    """Lightning's bar, with images per second and the time left of the whole run; lines where stdout is no terminal.

    Args:
        seconds: between two lines.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.lines = not sys.stdout.isatty()
        super().__init__(refresh_rate=0 if self.lines else 1)
        self.seconds = seconds
        # Of single batches: seconds in all, seconds of them spent waiting for data, images.
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=WINDOW)
        self._began = self._batch_began = self._printed = self._waited = 0.0
        self._first = 0

    def on_train_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Start the clock."""
        super().on_train_start(trainer, *arguments)
        self._began = self._batch_began = self._printed = time.monotonic()
        self._first = batches_done(trainer)

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Note how long the batch was waited for."""
        self._waited = time.monotonic() - self._batch_began

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, reading it included; print a line where one is due."""
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
        """Print the validation's metrics, and leave its time out of the next batch's."""
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
        """Print the last line."""
        super().on_train_end(*arguments)
        if self.lines and self.trainer.is_global_zero and self._recent:
            self._print_line(self.trainer, self.trainer.lightning_module, None)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return what stands behind the bar."""
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
        """Return the rate over the last batches, all devices together."""
        return sum(images for _, _, images in self._recent) / max(self._seconds(), 1e-9)

    def share_waiting(self) -> float:
        """Return the share of the last batches' time in which there was nothing to compute on, 0..1."""
        return sum(waited for _, waited, _ in self._recent) / max(self._seconds(), 1e-9)

    def _seconds(self) -> float:
        return sum(duration for duration, _, _ in self._recent)

    def seconds_left(self, trainer: pl.Trainer) -> float:
        """Return the time left of the whole run, validation and picture grids at the rate so far; inf if unknown."""
        done = batches_done(trainer)
        pace = (time.monotonic() - self._began) / max(done - self._first, 1)
        return pace * (total_batches(trainer) - done)

    def _print_line(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any) -> None:
        total, done = total_batches(trainer), batches_done(trainer)
        print(
            f"step {done}/{'?' if math.isinf(total) else int(total)}  epoch {trainer.current_epoch}  "
            f"{_losses(trainer.callback_metrics, 'train') or _losses(outputs, 'loss')}  "
            f"{self.images_per_second():.1f} images/s, {self.share_waiting():.0%} of the time waiting for data  "
            f"elapsed {clock(time.monotonic() - self._began)}  "
            f"ETA {clock(self.seconds_left(trainer))}",
            flush=True,
        )


def total_batches(trainer: pl.Trainer) -> float:
    """Return the number of batches of the whole run; inf if nothing bounds it."""
    done = batches_done(trainer)
    by_epochs = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        by_epochs = trainer.max_epochs * trainer.num_training_batches
    by_steps = math.inf
    if trainer.max_steps >= 0:
        # A model with a discriminator makes two optimizer steps a batch, accumulation less than one.
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
    """Return the number of pictures in a batch: the length of its first tensor."""
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
