"""Random state as a function of (seed, step, rank), so that checkpoints need not store it.

The per-sample random numbers of models do not depend on the rank either, see `ldm.models.per_sample_rng`.
"""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ldm.models.per_sample_rng import BatchIndex

TRAINING, VALIDATION = 0, 1


def seed_all(*key: int) -> None:
    """Seed torch on all devices, NumPy and Python from a key of non-negative integers."""
    words = np.random.SeedSequence(key).generate_state(4, np.uint32)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2])
    random.seed(int(words[3]))


class StepSeeding(pl.Callback):
    """Seed before each batch.

    Validation, preview grids or a resume between training steps then do not affect later steps, and all
    validations use the same noise, so that their losses are comparable.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed by the number of batches since the start of the run, and set the model's batch index."""
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
        """Seed by the index of the batch in the validation set."""
        seed_all(self.seed, VALIDATION, batch_idx, trainer.global_rank)

    on_test_batch_start = on_validation_batch_start
