"""Every use of Lightning's private names and of the layout of its checkpoints.

Checked against pytorch-lightning 2.6.6; read this file again when that version changes.
"""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def batches_done(trainer: pl.Trainer) -> int:
    """Return the number of batches since the start of the run, including before resumes."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]


def is_last_batch(trainer: pl.Trainer) -> bool:
    """Return whether this is the last batch of its epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def logged_step(trainer: pl.Trainer) -> int:
    """Return the current logging step, which counts batches that an optimizer has stepped on."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def checkpoint_step(checkpoint: Mapping[str, Any]) -> int:
    """Return the logging step of a checkpoint; raise KeyError or TypeError if it has no training state."""
    return checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]


def accumulates(trainer: pl.Trainer) -> bool:
    """Return whether this batch only adds to the gradients."""
    return trainer.fit_loop._should_accumulate()


def validation_follows(trainer: pl.Trainer) -> bool:
    """Return whether a validation starts after this training batch."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def pending_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the metrics of this training batch that are due but not logged yet, as callbacks run before loggers."""
    connector = trainer._logger_connector
    if not trainer.training or connector._first_loop_iter is None or not connector.should_update_logs:
        return {}
    return {name: float(value) for name, value in connector.metrics["log"].items()}


def set_between_batches(checkpoint: dict[str, Any], validation_follows: bool) -> None:
    """Set the loop state of a checkpoint to between two batches, or to the start of a pending validation.

    By default, Lightning skips a validation that was due right after the checkpoint, and continues an
    interrupted one in its middle.
    """
    progress = checkpoint["loops"]["fit_loop"]
    validation = progress["epoch_loop.val_loop.batch_progress"]
    begun = int(validation_follows)
    validation["total"] = {"ready": begun, "started": begun, "processed": 0, "completed": 0}
    validation["current"] = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    if validation_follows:
        for count in ("total", "current"):
            batches = progress["epoch_loop.batch_progress"][count]
            batches["completed"] = batches["processed"]


def is_first_process() -> bool:
    """Return whether this is the process of rank 0, also before a Trainer exists."""
    return getattr(rank_zero_only, "rank", 0) == 0


class ShardedStrategy(ModelParallelStrategy):
    """`strategy: fsdp`: weights, EMAs and optimizer state are sharded over the processes.

    Checkpoints are still single files with full tensors, written by the first process, in the format of other
    runs.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Shard over all processes; by default Lightning only shards over nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def ignore_in_broadcasts(model: nn.Module, buffers: list[str]) -> None:
    """Exclude buffers from those that data-parallel training broadcasts at every step (private to torch)."""
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, buffers)
