"""The trainer's step without its loop: what a row of the training part measures."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl
from torch import Tensor

from ldm.models.diffusion import LatentDiffusion
from ldm.models.per_sample_rng import BatchIndex
from ldm.training.trainer import silence_lightning


class TrainerStep:
    """One step of a run with `precision: bf16-mixed`, in the order of Lightning's loop.

    Optimizer, autocast and clipping are those of a `Trainer`: AdamW is fused, and autocast converts the
    weights at every use.

    Args:
        model: in training mode, on its device.
        clip: `lightning.trainer.gradient_clip_val`.
        batch: on the device.
    """

    def __init__(self, model: LatentDiffusion, clip: float | None, batch: Mapping[str, Tensor]) -> None:
        silence_lightning()
        trainer = pl.Trainer(
            accelerator="gpu" if model.device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed",
            gradient_clip_val=clip,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        model.trainer = trainer
        model.log_dict = lambda *a, **k: None  # type: ignore[method-assign]
        self.model, self.clip, self.batch = model, clip or 0.0, batch
        self.precision = trainer.precision_plugin
        self.optimizer = model.configure_optimizers()
        self.steps = 0

    def passes(self) -> None:
        """Compute the gradients; those of the step before are in memory during the forward pass, as in the loop."""
        self.model.batch_index = BatchIndex(seed=0, batch=self.steps)
        with self.precision.train_step_context():
            loss = self.model.training_step(self.batch, self.steps)
        self.optimizer.zero_grad()
        loss.backward()

    def __call__(self) -> None:
        """Take a step."""
        self.passes()
        if self.clip:
            self.model.configure_gradient_clipping(self.optimizer, self.clip, "norm")
        self.optimizer.step()
        self.model._emas().update()
        self.steps += 1

    def close(self) -> None:
        """Free the gradients and undo the changes of the model."""
        self.model.zero_grad(set_to_none=True)
        self.model.trainer = None
        self.model.__dict__.pop("log_dict", None)
