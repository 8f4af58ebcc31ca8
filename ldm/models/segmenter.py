"""Training and evaluation of semantic segmentation networks for face parsing."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.state_dict import load_weights
from ldm.data.augmentation import Augmentation
from ldm.data.labels import LABEL_SETS, UNLABELED, one_hot
from ldm.metrics.overlap import confusion, overlap
from ldm.models.optimizers import annealed
from ldm.modules.face_parser import FaceParserNetwork
from ldm.modules.precision import training_in_bfloat16_is_faster
from ldm.targets import ConfigError

Batch = Mapping[str, Any]
SMALL = 128  # side of an image that a CPU trains on in a fraction of a second


class Segmenter(pl.LightningModule):
    """Segmentation network with its loss and metrics; subclasses define the network.

    Args (the YAML's keys, in addition to those of the subclass):
        label_set: name of a label set in `ldm.data.labels.LABEL_SETS`.
        augmentation: arguments of `ldm.data.augmentation.Augmentation` for training batches; None disables
            it.
        ckpt_path: checkpoint to initialize the weights from.
        anneal_steps: length of the cosine decay of the learning rate to zero; 0 keeps it constant.
        monitor: logged metric that selects the best checkpoint.

    Raises:
        ConfigError: an unknown label set.
    """

    network: nn.Module
    input_size: tuple[int, int] | None = (
        None  # (H, W) that inputs are resized to; None for the size of the training data
    )

    def __init__(
        self,
        label_set: str,
        augmentation: Mapping[str, Any] | None,
        ckpt_path: str | None,
        anneal_steps: int,
        monitor: str,
    ) -> None:
        super().__init__()
        if label_set not in LABEL_SETS:
            raise ConfigError(f"label_set must be one of {', '.join(LABEL_SETS)}, got {label_set!r}")
        self.label_set = LABEL_SETS[label_set]
        self.monitor, self.anneal_steps = monitor, anneal_steps
        self.learning_rate = 0.0  # set by main.py from base_learning_rate
        self.augment = None if augmentation is None else Augmentation(**augmentation)
        self.network = self._network()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(0), persistent=False)
        if ckpt_path is not None:
            load_weights(self, read_checkpoint(ckpt_path).state_dict)

    def _network(self) -> nn.Module:
        """Build the network."""
        raise NotImplementedError

    def _logits(self, image: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] to logits (B, R, h, w)."""
        raise NotImplementedError

    def _training_logits(self, image: Tensor) -> Tensor:
        """Return the logits for the loss, at the image's size or smaller."""
        return self(image)

    def forward(self, image: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] to logits (B, R, H, W)."""
        logits = self._logits(image)  # (B, R, h, w)
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of an augmented batch."""
        image, labels = batch["image"], batch["labels"]
        if self.augment is not None:
            with torch.autocast(image.device.type, enabled=False):
                image, labels = self.augment(image, labels)
        logits = self._training_logits(image)
        labels = F.interpolate(labels[:, None], size=logits.shape[-2:], mode="nearest-exact")[:, 0]
        loss = self._loss(logits, labels)
        self.log("train/loss", loss.detach())  # in the bar, it would be read after every batch
        return loss

    def trains_faster_in_bfloat16(self, batch_size: int = 1) -> bool:
        """Return whether a training step of the network is clearly faster under bfloat16 autocast.

        Measured on the batch that is trained on a GPU, which small ones do not fill; on one small image on a
        CPU.
        """
        small = 1, 3, SMALL, SMALL
        shape = (batch_size, 3, *(self.input_size or (SMALL, SMALL))) if self.device.type == "cuda" else small
        image = torch.zeros(shape, device=self.device)
        return training_in_bfloat16_is_faster(self.network, lambda: self._training_logits(image), self.device)

    def on_validation_epoch_start(self) -> None:
        """Reset the confusion matrix."""
        R = len(self.label_set)
        self.seen = torch.zeros(R, R + 1, dtype=torch.int64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and update the confusion matrix."""
        logits = self(batch["image"])
        loss = self._loss(logits, batch["labels"])
        self.log("val/loss", loss, batch_size=len(logits), sync_dist=True)
        self.seen += confusion(logits.argmax(1), batch["labels"], len(self.label_set), checked=True)

    def on_validation_epoch_end(self) -> None:
        """Log mean IoU, the IoU of each region and the pixel accuracy."""
        found = overlap(self._of_all_processes(self.seen))
        self.log("val/miou", found.miou, prog_bar=True)
        self.log("val/pixel_accuracy", found.pixel_accuracy)
        for region, iou in zip(self.label_set.regions, found.iou, strict=True):
            self.log(f"val/iou/{region}", iou)

    def _of_all_processes(self, counts: Tensor) -> Tensor:
        gathered = self.all_gather(counts)  # (R, R + 1), with several processes (N, R, R + 1)
        assert isinstance(gathered, Tensor)
        return gathered.view(-1, *counts.shape).sum(0)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self) -> Any:
        """Return AdamW without weight decay on biases and norms (one-dimensional parameters)."""
        weights = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        return annealed(torch.optim.AdamW(groups, lr=self.learning_rate), self.anneal_steps)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy plus the soft Dice loss (arXiv 1606.04797), averaged over the regions present.

        The Dice loss gives a small region, such as an earring, the same weight as the background. Without
        labels, the loss is 0.
        """
        logits, labels = logits.float(), labels.long()
        known = (labels != UNLABELED)[:, None]  # (B, 1, H, W)
        truth = one_hot(labels, len(self.label_set), checked=True)  # (B, R, H, W)
        probability = logits.softmax(1) * known
        both, either = (probability * truth).sum((0, 2, 3)), (probability + truth).sum((0, 2, 3))
        there = truth.sum((0, 2, 3)) > 0
        dice = 2 * both / either.clamp(min=1)  # (R,), 0 for absent regions
        cross_entropy = F.cross_entropy(logits, labels, ignore_index=UNLABELED, reduction="sum")
        cross_entropy = cross_entropy / known.sum().clamp(min=1)
        return cross_entropy + there.any() - (dice * there).sum() / there.sum().clamp(min=1)

    @torch.no_grad()
    def log_images(self, batch: Batch, n: int) -> dict[str, Tensor]:
        """Return the columns of the preview grid for the first `n` images, (n, 3, H, W) in [-1, 1]."""
        image = batch["image"][:n]
        painted = [torch.from_numpy(self.label_set.colorize(one)) for one in self(image).argmax(1)]
        found = torch.stack(painted).permute(0, 3, 1, 2) / 127.5 - 1
        return {"input": image, "found": found.to(image.device)}


class EfficientFaceParser(Segmenter):
    """Training of `ldm.modules.face_parser.FaceParserNetwork`.

    Args (the YAML's keys):
        widths, pretrained: arguments of the network.
        input_side: side of the square that inputs are resized to, divisible by 32; larger than in training,
            because augmentation covers many face sizes.
        label_set, augmentation, ckpt_path, anneal_steps, monitor: as `Segmenter`.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96, 128, 128),
        pretrained: bool = False,
        input_side: int = 384,
        label_set: str = "CelebAMask-HQ",
        augmentation: Mapping[str, Any] | None = None,
        ckpt_path: str | None = None,
        anneal_steps: int = 0,
        monitor: str = "val/miou",
    ) -> None:
        if input_side < 32 or input_side % 32:
            raise ConfigError(f"input_side must be divisible by 32, got {input_side}")
        self._widths, self._pretrained = tuple(widths), pretrained
        self.input_size = input_side, input_side
        super().__init__(label_set, augmentation, ckpt_path, anneal_steps, monitor)
        self.to(memory_format=torch.channels_last)

    def _network(self) -> nn.Module:
        return FaceParserNetwork(len(self.label_set), self._widths, self._pretrained)

    def _logits(self, image: Tensor) -> Tensor:
        return self.network(image.contiguous(memory_format=torch.channels_last))  # (B, R, H/2, W/2)

    def _training_logits(self, image: Tensor) -> Tensor:
        return self._logits(image)  # at half resolution, where the loss costs a quarter
