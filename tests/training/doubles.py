"""The diffusion in double precision, for strategies whose Trainer refuses it."""

from typing import Any

import torch
from torch import Tensor

from ldm.models.diffusion import LatentDiffusion


class DoubleDiffusion(LatentDiffusion):
    """Rounding is then too small for Adam, which divides by the size of gradients, to make a step of it."""

    def configure_model(self) -> None:
        self.double()
        super().configure_model()

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        return {**batch, "image": batch["image"].double()}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        torch.set_default_dtype(torch.float64)
        try:
            return super().training_step(batch, batch_idx)
        finally:
            torch.set_default_dtype(torch.float32)
