"""The choice that `lightning.trainer.precision: auto` leaves open."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from ldm.models.latent_networks import LatentNetworks
from ldm.models.segmenter import Segmenter
from ldm.modules.precision import native_bfloat16

# Their losses are computed in float32. The autoencoder is left out: its output is an image, which bfloat16 rounds by up
# to 1/4 of an 8-bit level, and `start_from_means` inverts a covariance. Losses of 440 steps at 64x64 are equal
# (0.337 and 0.338); the smaller errors of a complete training were not compared.
MEASURED = (LatentNetworks, Segmenter)


def trainer_precision(settings: Mapping[str, Any], model: pl.LightningModule, batch_size: int = 1) -> Any:
    """Return the Trainer's precision; "auto" is bf16-mixed for a model of MEASURED that trains faster in it.

    Otherwise, "auto" is 32-true. Several processes must agree, so they do not measure: they take bfloat16 on
    GPUs that have it.

    Args:
        settings: options of `lightning.trainer`.
        model: model to train; it is moved to the device that is measured.
        batch_size: images per step of a process.
    """
    precision = settings.get("precision") or "32-true"
    if precision != "auto":
        return precision
    on_gpu = settings.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    if not isinstance(model, MEASURED):
        return "32-true"
    if settings.get("devices", 1) not in (1, "1", "auto") or settings.get("num_nodes", 1) != 1:
        return "bf16-mixed" if on_gpu and native_bfloat16(device) else "32-true"
    return "bf16-mixed" if model.to(device).trains_faster_in_bfloat16(batch_size) else "32-true"
