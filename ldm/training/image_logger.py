"""Preview grids at intervals: samples for the same few images throughout training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import default_collate

from ldm.data.datamodule import Readable
from ldm.data.image_grid import draw_grid
from ldm.training.lightning_internals import batches_done
from ldm.training.seeding import seed_all


class ImageLogger(pl.Callback):
    """Write images/step_N.png and a TensorBoard image from the model's `log_images(batch, n)`.

    The batch is the start of the validation set, so that grids are comparable, or the training batch without
    one. The noise is the same each time, and the random state of training is not affected.

    Args:
        batch_frequency: batches between grids.
        max_images: maximum number of rows of a grid.
        increase_log_steps: also log at batches 1, 2, 4, 8, ... below `batch_frequency`.
        on_validation: also log after each validation.
        cell: minimum side of an image in the grid, in pixels.
        disabled: disable the callback.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(
        self,
        batch_frequency: int = 1000,
        max_images: int = 8,
        increase_log_steps: bool = True,
        on_validation: bool = False,
        cell: int = 128,
        disabled: bool = False,
    ) -> None:
        for name, value in (("batch_frequency", batch_frequency), ("max_images", max_images), ("cell", cell)):
            if value < 1:
                raise ValueError(f"ImageLogger: {name} must be at least 1, got {value}")
        self.batch_frequency, self.max_images, self.cell = batch_frequency, max_images, cell
        self.increase_log_steps, self.on_validation, self.disabled = (
            increase_log_steps,
            on_validation,
            disabled,
        )
        self._drawn_step = 0

    def is_due(self, step: int) -> bool:
        """Return whether batch `step`, counted from 1, gets a grid."""
        early = self.increase_log_steps and step < self.batch_frequency and step & (step - 1) == 0
        return step > 0 and (step % self.batch_frequency == 0 or early)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a grid if it is due."""
        if self.is_due(batches_done(trainer)):
            self._draw(trainer, pl_module, batch)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log a grid after a validation during training if `on_validation` is set."""
        if self.on_validation and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._draw(trainer, pl_module, None)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, training_batch: Any) -> None:
        step = batches_done(trainer)
        log_images: Any = getattr(pl_module, "log_images", None)
        sharded = pl_module.device_mesh is not None  # then all processes must take part
        if self.disabled or log_images is None or step == self._drawn_step:
            return
        if not (trainer.is_global_zero or sharded):
            return
        self._drawn_step = step
        batch = self._first_of_validation(trainer, pl_module) or training_batch
        with isolate_rng(), _evaluating(pl_module), torch.no_grad():
            seed_all(0)
            columns = log_images(batch, min(self.max_images, len(batch["image"])))
        if not trainer.is_global_zero:
            return
        grid = draw_grid(_with_mask(columns, batch, trainer), self.cell)
        folder = Path(trainer.default_root_dir) / "images"
        folder.mkdir(parents=True, exist_ok=True)
        grid.save(folder / f"step_{step:08d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("grid", np.asarray(grid), step, dataformats="HWC")

    def _first_of_validation(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
        """Return the first validation images as a batch on the model's device; None without a validation set."""
        datasets = getattr(getattr(trainer, "datamodule", None), "datasets", {})
        if (dataset := datasets.get("validation")) is None:
            return None
        readable = Readable(dataset)
        batch = default_collate([readable[i] for i in range(min(self.max_images, len(readable)))])
        return trainer.strategy.batch_to_device(batch, pl_module.device)


def _with_mask(columns: dict[str, Tensor], batch: dict[str, Any], trainer: pl.Trainer) -> dict[str, Tensor]:
    """Insert the colorized labels after the first column, if batch and dataset have labels."""
    label_set = getattr(getattr(trainer, "datamodule", None), "label_set", None)
    if label_set is None or "labels" not in batch or not columns:
        return columns
    rows = len(next(iter(columns.values())))
    colors = [np.asarray(label_set.colorize(labels)) for labels in batch["labels"][:rows].cpu()]
    mask = torch.from_numpy(np.stack(colors)).permute(0, 3, 1, 2)
    (first, images), *others = columns.items()
    return {first: images, "mask": mask, **dict(others)}


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Set evaluation mode, then restore the mode of every submodule: a frozen first stage stays in evaluation."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
