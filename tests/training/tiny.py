"""A model and a dataset small enough for tests that start real processes, random where real ones are."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset

from ldm.data.labels import CELEBAMASK_HQ


class CrashError(Exception):
    """Ends a run as abruptly as a kill, as far as files are concerned."""


class Pause(pl.Callback):
    """Stand still for ten minutes at the end of batch number `step`, so that a signal cannot come too late."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.step:
            time.sleep(600)


class KeepState(pl.Callback):
    """At the end of training, write what each process has to FOLDER/RANK.pt.

    `state`: the parameters and all buffers; `held`: trained numbers that this process holds, of `trained` in
    all.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {**dict(pl_module.named_parameters()), **dict(pl_module.named_buffers())}
        state = {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in state.items()}
        trained = [x.detach() for x in pl_module.parameters() if x.requires_grad]
        kept = {
            "state": {name: value.detach().clone() for name, value in state.items()},
            "held": sum((x.to_local() if isinstance(x, DTensor) else x).numel() for x in trained),
            "trained": sum(x.numel() for x in trained),
        }
        torch.save(kept, self.folder / f"{trainer.global_rank}.pt")


class TinyFaces(Dataset[dict[str, Any]]):
    """Pictures of noise drawn from (index, epoch)."""

    label_set = CELEBAMASK_HQ

    def __init__(self, length: int, size: int = 8, broken: int = -1, unreadable: int = -1) -> None:
        if size % 4:
            raise ValueError(f"size is {size}; expected a multiple of 4")
        self.length, self.size, self.epoch = length, size, 0
        self.broken, self.unreadable = broken, unreadable

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.unreadable:
            raise ValueError(f"{index}.jpg is cut off; copy it again")
        rng = np.random.default_rng([index, self.epoch])
        image = torch.from_numpy(rng.uniform(-1, 1, (3, self.size, self.size)).astype(np.float32))
        if index == self.broken:
            image[:] = torch.nan
        labels = torch.from_numpy(rng.integers(0, 19, (self.size, self.size)).astype(np.uint8))
        return {"image": image, "labels": labels, "name": f"{index}.jpg"}


class TinyModel(pl.LightningModule):
    """Denoise with one convolution; noise, dropout and Python's and NumPy's randomness all enter the loss.

    Args:
        width: channels.
        manual: two optimizers stepped by hand, as with a discriminator.
        pause: seconds to sleep in each training step.
        validation_pause: the same in each validation step.
        explode_at: this step's gradient is not finite.
        crash_at: this step raises.
        monitor: what decides which checkpoint is the best.
    """

    def __init__(
        self,
        width: int = 8,
        manual: bool = False,
        pause: float = 0.0,
        validation_pause: float = 0.0,
        explode_at: int = -1,
        crash_at: int = -1,
        monitor: str = "val/loss",
    ) -> None:
        super().__init__()
        self.automatic_optimization = not manual
        self.monitor = monitor
        self.learning_rate = 0.0
        self.pause, self.validation_pause = pause, validation_pause
        self.explode_at, self.crash_at = explode_at, crash_at
        self.model = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.SiLU(), nn.Dropout(0.2), nn.Conv2d(width, 3, 1)
        )
        self.first_stage_model = nn.Conv2d(3, 3, 1)
        self.first_stage_model.eval().requires_grad_(False)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        noise = torch.randn_like(batch["image"])
        weight = 1 + 0.1 * np.random.rand()
        return weight * (self.model(batch["image"] + noise) - noise).square().mean()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        time.sleep(self.pause)
        if self.trainer.fit_loop.total_batch_idx == self.crash_at:
            raise CrashError
        loss = self.loss(batch)
        if self.trainer.fit_loop.total_batch_idx == self.explode_at:
            loss = loss + (self.model[0].weight.sum() * 0).sqrt()  # 0, its gradient is not
        first = float(batch["name"][0].split(".")[0])
        self.log_dict({"train/loss": loss.detach(), "train/first": first}, prog_bar=True)
        if not self.automatic_optimization:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch))
                optimizer.step()
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        time.sleep(self.validation_pause)
        self.log("val/loss", self.loss(batch), on_epoch=True, batch_size=len(batch["image"]))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.log("test/loss", self.loss(batch), on_epoch=True, batch_size=len(batch["image"]))

    def configure_optimizers(self) -> Any:
        def adam() -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate)

        if not self.automatic_optimization:
            return [adam(), adam()]
        optimizer = adam()
        warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warmup, "interval": "step"}}

    def log_images(self, batch: dict[str, Any], n: int) -> dict[str, Tensor]:
        images = batch["image"][:n]
        return {"input": images, "reconstruction": self.model(images + torch.randn_like(images))}
