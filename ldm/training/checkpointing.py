"""Atomic checkpoints and exact resumption of training."""

import math
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ldm.atomic_files import write_at
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.torch_files import verify_checksums
from ldm.training.finite import check_before_writing
from ldm.training.lightning_internals import (
    accumulates,
    batches_done,
    checkpoint_step,
    is_last_batch,
    logged_step,
    pending_metrics,
    set_between_batches,
    validation_follows,
)
from ldm.training.metrics_csv import MetricsCSV
from ldm.training.stopping import Interrupted, StopRequest

AGREE_EVERY = 10  # batches between two times that several processes agree, which waits for their GPUs


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically after verifying that they load; load without executing code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Replace the file at `path`.

        Raises:
            RuntimeError: the checkpoint holds objects that safe loading refuses.
            WriteError: the file cannot be written; the last checkpoint is unchanged.
        """
        target = Path(path)

        def write(partial: Path) -> None:
            with open(partial, "wb") as file:
                torch.save(checkpoint, file)
            try:
                torch.load(partial, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:
                raise RuntimeError(
                    f"the checkpoint cannot be loaded again, so {target} was not replaced: {error}"
                ) from error

        write_at(target, write, bytes_in(checkpoint))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load tensors and plain data of a checkpoint; `weights_only` is ignored.

        Raises:
            CheckpointError: a damaged file.
        """
        return load_saved(Path(path))


class CheckpointWriter(Checkpoint):
    """Write last.ckpt and best.ckpt, and stop the run on a signal.

    Steps count batches, not optimizer steps; a model with a discriminator takes two of those per batch.

    Args:
        folder: directory of last.ckpt and best.ckpt.
        every_n_steps: batches between writes of last.ckpt; None disables it.
        every_n_minutes: minutes between writes of last.ckpt; None disables it.
        monitor_mode: "min" or "max", whether lower or higher values of the model's `monitor` are better.
        stop: set by a signal; the end of the next batch then writes last.ckpt and raises Interrupted. Several
            processes look at it, and at their clocks, every `AGREE_EVERY` batches.
    """

    def __init__(
        self,
        folder: Path,
        every_n_steps: int | None = 1000,
        every_n_minutes: float | None = 10.0,
        monitor_mode: str = "min",
        stop: StopRequest | None = None,
    ) -> None:
        if monitor_mode not in ("min", "max"):
            raise ValueError(f"lightning.checkpoint.monitor_mode must be min or max, got {monitor_mode!r}")
        for name, value in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if value is not None and value <= 0:
                raise ValueError(
                    f"lightning.checkpoint.{name} must be above 0, or null to disable it, got {value}"
                )
        self.last, self.best = folder / "last.ckpt", folder / "best.ckpt"
        self.every_n_steps, self.every_n_minutes, self.monitor_mode = (
            every_n_steps,
            every_n_minutes,
            monitor_mode,
        )
        self.stop = stop or StopRequest()
        self.best_score: float | None = None
        self.saved_step = 0
        self._saved_at = 0.0
        self._batches = 0  # with an optimizer step, since the start of this process
        self._validation_follows = False
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score of the interrupted run."""
        self.best_score = state_dict["best_score"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and replace Lightning's signal handlers, which would skip the checkpoint."""
        self._saved_at = time.monotonic()
        self.saved_step = batches_done(trainer)
        self.stop.deferring = True
        self.stop.listen()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write last.ckpt if it is due or a stop is requested."""
        if accumulates(trainer):
            return  # checkpoints do not contain accumulated gradients
        self._batches += 1
        stop = self._agree(trainer, self.stop.signum is not None, self._batches)
        late = self._agree(trainer, self._minutes_due(), self._batches)
        if stop or late or self._steps_due(trainer) or self._ends_here(trainer):
            self._validation_follows = validation_follows(trainer)
            self.write_last(trainer, pl_module)
        if stop:
            self._leave(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop during validation, which a resumed run repeats from its start."""
        if (
            trainer.state.fn == "fit"
            and not trainer.sanity_checking
            and self._agree(trainer, self.stop.signum is not None, batch_idx)
        ):
            if self.saved_step != batches_done(trainer):
                self._validation_follows = True
                self.write_last(trainer, pl_module)
            self._leave(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write best.ckpt if the model's `monitor` has improved."""
        self._validation_follows = False
        monitor = getattr(pl_module, "monitor", None)
        if trainer.sanity_checking or trainer.state.fn != "fit" or monitor is None:
            return
        if monitor not in trainer.callback_metrics:
            if not self._warned and trainer.is_global_zero:
                logged = ", ".join(sorted(trainer.callback_metrics)) or "none"
                warnings.warn(
                    f"monitor {monitor!r} is not logged, so best.ckpt is not written; logged: {logged}",
                    stacklevel=2,
                )
            self._warned = True
            return
        score = float(trainer.callback_metrics[monitor])
        sign = 1 if self.monitor_mode == "min" else -1
        if math.isfinite(score) and (self.best_score is None or sign * score < sign * self.best_score):
            check_before_writing(trainer, pl_module)
            self.best_score = score
            trainer.save_checkpoint(self.best)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write last.ckpt if the run ended before its last step, as with early stopping."""
        if self.saved_step != batches_done(trainer):
            self.write_last(trainer, pl_module)
        self.stop.deferring = False

    def write_last(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the metrics of this step, then last.ckpt, so that a kill loses neither."""
        check_before_writing(trainer, pl_module)
        if metrics := pending_metrics(trainer):
            for logger in trainer.loggers:
                if isinstance(logger, MetricsCSV):
                    logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, logged_step(trainer))
        trainer.save_checkpoint(self.last)
        self.saved_step, self._saved_at = batches_done(trainer), time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make the checkpoint resume between two batches, or at the start of a pending validation."""
        set_between_batches(checkpoint, self._validation_follows)

    def _steps_due(self, trainer: pl.Trainer) -> bool:
        """Return whether last.ckpt is due by the number of batches, which is the same in all processes."""
        since = batches_done(trainer) - self.saved_step
        return self.every_n_steps is not None and since >= self.every_n_steps

    def _minutes_due(self) -> bool:
        """Return whether last.ckpt is due by the clock of this process."""
        minutes = (time.monotonic() - self._saved_at) / 60
        return self.every_n_minutes is not None and minutes >= self.every_n_minutes

    def _ends_here(self, trainer: pl.Trainer) -> bool:
        """Return whether this is the last batch; a later checkpoint could not resume within its epoch."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            return True
        last_epoch = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
        return last_epoch and is_last_batch(trainer)

    def _agree(self, trainer: pl.Trainer, here: bool, batch: int) -> bool:
        """Return whether any process agrees: all must write and stop at the same batch.

        Asking the others waits for the device, so with several processes only every `AGREE_EVERY`-th batch
        does.
        """
        if trainer.world_size == 1:
            return here
        return batch % AGREE_EVERY == 0 and trainer.strategy.reduce_boolean_decision(here, all=False)

    def _leave(self, trainer: pl.Trainer) -> None:
        raise Interrupted(self.stop.signum or 15)


def bytes_in(content: Any) -> int:
    """Return how many bytes the tensors of a nested structure take, each memory once."""
    found: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict | list | tuple):
            for part in value.values() if isinstance(value, dict) else value:
                visit(part)

    visit(content)
    return sum(found.values())


def saved_step(checkpoint: Path) -> int:
    """Return the logging step of a checkpoint without reading its tensors.

    Raises:
        CheckpointError: a damaged file, or one with weights only.
    """
    try:
        return checkpoint_step(load_saved(checkpoint, mmap=True))
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint}: no training state to resume from; to start a new run from its weights set "
            f"model.params.ckpt_path={checkpoint}"
        ) from error


def load_saved(checkpoint: Path, mmap: bool = False) -> Any:
    """Load tensors and plain data of a checkpoint.

    Args:
        checkpoint: path of the file.
        mmap: memory-map tensors instead of reading them; their checksums are not verified.

    Raises:
        CheckpointError: a damaged file; the message names an alternative.
    """
    try:
        if not mmap:
            verify_checksums(checkpoint)
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch has no common class for errors of damaged files
        other = checkpoint.with_name("last.ckpt" if checkpoint.name == "best.ckpt" else "best.ckpt")
        advice = (
            f"resume from {other.name} in the same folder: --resume {other}"
            if other.is_file()
            else "start a new run"
        )
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{checkpoint}: damaged ({reason}); {advice}") from error
