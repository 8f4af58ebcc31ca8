"""Random state as a function of (seed, step, rank): a resumed run needs none from its checkpoint.

What a model draws for single pictures does not depend on the rank either, see `ldm.models.per_sample_rng`.
"""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ldm.models.per_sample_rng import BatchIndex

TRAINING, VALIDATION = 0, 1


def seed_all(*key: int) -> None:
    """Seed torch on all devices, NumPy and Python from a key of integers >= 0, each key unlike every other."""
    words = np.random.SeedSequence(key).generate_state(4, np.uint32)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2])
    random.seed(int(words[3]))


class StepSeeding(pl.Callback):
    """Seed before each batch.

    Validation, picture grids, or a resume between two training steps therefore change nothing in the second; and each
    validation draws the same noise, so that its losses compare.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed by the number of batches since the start of the run; tell the model which pictures it gets."""
        batch_number = trainer.fit_loop.total_batch_idx
        seed_all(self.seed, TRAINING, batch_number, trainer.global_rank)
        model: Any = pl_module
        if hasattr(model, "batch_index"):
            model.batch_index = BatchIndex(self.seed, batch_number, trainer.global_rank, trainer.world_size)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed by the place of the batch in the validation set."""
        seed_all(self.seed, VALIDATION, batch_idx, trainer.global_rank)

    on_test_batch_start = on_validation_batch_start
