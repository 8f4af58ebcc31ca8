"""First stage: a vector-quantized autoencoder between pixels and latents."""

import warnings
from collections.abc import Mapping
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.state_dict import first_stage_weights, load_weights
from ldm.models.autoencoder_init import carry_colors, whiten
from ldm.models.optimizers import annealed
from ldm.modules.layers import full_precision
from ldm.modules.vqgan import Codebook, Decoder, Encoder
from ldm.targets import instantiate_from_config

Batch = Mapping[str, Any]


class VQModel(pl.LightningModule):
    """VQ-regularized autoencoder (VQ-F4 and variants) and its training.

    Args (the YAML's keys):
        ddconfig: arguments of `Encoder` and `Decoder`.
        lossconfig: target of the loss, `ldm.modules.losses.VQLoss` or a class with the same signature.
        n_embed: number of codebook entries.
        embed_dim: latent channels.
        ckpt_path: checkpoint to initialize the weights from: of a first stage, or of a complete model that
            has one.
        image_key: batch entry that holds the image.
        monitor: logged metric that selects the best checkpoint.
        codebook_reset_after: reset a codebook entry to a random latent after this many training batches
            without use, which keeps short runs from leaving most of the codebook unused; 0 disables it
            (published setting).
        anneal_steps: length of the cosine decay of the learning rate to zero; 0 keeps it constant
            (published).
        start_from_means: initialize as an autoencoder that averages the colors of each latent pixel's area,
            with latents of unit covariance (`ldm.models.autoencoder_init`); requires `norm_groups: 0`. False
            initializes at random (published).
        scale_equivariance: weight of the L1 loss between the half-size image and the decoded half-size latent
            (arXiv 2502.14831). It discourages latent detail that only the decoder can read, so that latents
            are easier to denoise. 0 disables it (published).

    Raises:
        ValueError: `anneal_steps` with a discriminator, or `start_from_means` with an unsuitable network.
    """

    def __init__(
        self,
        ddconfig: Mapping[str, Any],
        lossconfig: Mapping[str, Any],
        n_embed: int,
        embed_dim: int,
        ckpt_path: str | None = None,
        image_key: str = "image",
        monitor: str | None = "val/rec_loss",
        codebook_reset_after: int = 0,
        anneal_steps: int = 0,
        start_from_means: bool = False,
        scale_equivariance: float = 0.0,
    ) -> None:
        super().__init__()
        if ddconfig.get("double_z", True):
            raise ValueError(
                "ddconfig.double_z must be false, got true: a codebook takes no mean and variance"
            )
        self.anneal_steps = anneal_steps
        self.scale_equivariance = scale_equivariance
        self.codebook_reset_after = codebook_reset_after
        self.image_key = image_key
        self.monitor = monitor
        self.learning_rate = 0.0  # set by main.py from base_learning_rate
        self.encoder = Encoder(**ddconfig)
        self.decoder = Decoder(**ddconfig)
        self.loss = instantiate_from_config(lossconfig)
        self.quantize = Codebook(n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(ddconfig["z_channels"], embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, ddconfig["z_channels"], 1)
        self.factor: int = 2 ** (len(ddconfig["ch_mult"]) - 1)
        self._to_whiten = start_from_means and ckpt_path is None
        if start_from_means:
            carry_colors(self.encoder, self.decoder)
        # Lightning requires manual optimization for two optimizers.
        self.automatic_optimization = self._discriminator is None
        if anneal_steps and not self.automatic_optimization:
            raise ValueError(
                "anneal_steps needs a loss without discriminator; set anneal_steps or disc_weight to 0"
            )
        self._steps = 0
        if ckpt_path is not None:
            weights = first_stage_weights(read_checkpoint(ckpt_path).state_dict)
            load_weights(self, weights, ignore_prefixes=("loss.",))
            self.quantize.idle.zero_()  # keep the first batch from resetting a trained codebook

    @property
    def _discriminator(self) -> nn.Module | None:
        return getattr(self.loss, "discriminator", None)

    def encode(self, image: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] to the latent before quantization, (B, D, H/f, W/f)."""
        return self.quant_conv(self.encoder(image))

    def decode(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        """Quantize z (B, D, h, w) unless `force_not_quantize`; decode it to (B, 3, f*h, f*w), about [-1, 1]."""
        return self.decoder(self.post_quant_conv(z if force_not_quantize else self.quantize.quantize(z)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction of image (B, 3, H, W), the codebook loss and the indices (B, h, w)."""
        return self._through_codebook(full_precision(self.encode(image)))

    def _through_codebook(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized, codebook_loss, indices = self.quantize(z)
        reconstruction = full_precision(self.decode(quantized, force_not_quantize=True))
        return reconstruction, codebook_loss, indices

    def _losses(
        self, image: Tensor, output: tuple[Tensor, Tensor, Tensor], optimizer: int, split: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction, codebook_loss, _ = output
        return self.loss(
            codebook_loss,
            image,
            reconstruction,
            optimizer,
            self._steps,
            last_layer=self.decoder.last_layer,
            split=split,
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Update the autoencoder and, if there is one, the discriminator."""
        image = batch[self.image_key]
        if self._to_whiten and self._steps == 0:
            whiten(self.quant_conv, self.post_quant_conv, self.encoder(image))
        z = full_precision(self.encode(image))
        if self.codebook_reset_after:
            self.quantize.reset_unused(z, self.codebook_reset_after)
        output = self._through_codebook(z)
        if self.automatic_optimization:
            loss, log = self._autoencoder_loss(image, z, output)
        else:
            loss, log = self._step_both(image, z, output)
        self._steps += 1
        self.log("train/loss", loss.detach())  # in the bar, it would be read after every batch
        share, perplexity = self.quantize.use(output[2])
        self.log("train/codebook_use", share)
        self.log("train/codebook_perplexity", perplexity)
        self.log_dict(log)
        return loss

    def _autoencoder_loss(
        self, image: Tensor, z: Tensor, output: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training loss of the autoencoder, and its parts to log."""
        loss, log = self._losses(image, output, 0, "train")
        if self.scale_equivariance:
            log["train/scale_loss"] = self._scale_loss(image, z)
            loss = loss + self.scale_equivariance * log["train/scale_loss"]
        return loss, log

    def _scale_loss(self, image: Tensor, z: Tensor) -> Tensor:
        """Return the L1 between the decoded half-size latent and the half-size image (arXiv 2502.14831, eq. 4)."""
        small = self.decode(F.avg_pool2d(z, 2), force_not_quantize=True)  # (B, 3, H/2, W/2)
        return F.l1_loss(small, F.avg_pool2d(image, 2))

    def _step_both(
        self, image: Tensor, z: Tensor, output: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Update the autoencoder and the discriminator; return the autoencoder's loss and the logs.

        Both losses use the same reconstructions. No parameter receives gradients from both, so a single
        backward pass is enough; data-parallel training expects exactly one that involves every parameter.
        """
        generator, discriminator = self.optimizers()  # type: ignore[attr-defined]
        adversary = self._discriminator
        assert adversary is not None  # otherwise optimization is automatic
        adversary.requires_grad_(False)  # the autoencoder's loss must not train it
        loss, log = self._autoencoder_loss(image, z, output)
        adversary.requires_grad_(True)
        disc_loss, disc_log = self._losses(image, output, 1, "train")
        generator.zero_grad()
        discriminator.zero_grad()
        self.manual_backward(loss + disc_loss)
        generator.step()
        discriminator.step()
        return loss, log | disc_log

    def on_train_start(self) -> None:
        """Warn if the run ends before the discriminator starts."""
        # The attribute's name here, or in taming-transformers.
        start = getattr(self.loss, "disc_start", getattr(self.loss, "discriminator_iter_start", 0))
        last = self.trainer.max_steps
        if self._discriminator is not None and 0 <= last <= 2 * start:
            warnings.warn(
                f"lightning.trainer.max_steps is {last} (two steps per batch), but the discriminator starts at batch "
                f"{start}, which the run never reaches; set max_steps above {2 * start}",
                stacklevel=2,
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the autoencoder's losses."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the autoencoder's losses."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, split: str) -> None:
        image = batch[self.image_key]
        output = self(image)
        _, log = self._losses(image, output, 0, split)
        log[f"{split}/codebook_perplexity"] = self.quantize.use(output[2])[1]
        self.log_dict(log, batch_size=len(image), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return Adam with the published betas: one for the autoencoder, one for the discriminator."""
        own = chain(*(m.parameters() for m in self._autoencoder()))
        adam = torch.optim.Adam(own, lr=self.learning_rate, betas=(0.5, 0.9))
        if self._discriminator is None:
            return annealed(adam, self.anneal_steps)
        disc_adam = torch.optim.Adam(
            self._discriminator.parameters(), lr=self.learning_rate, betas=(0.5, 0.9)
        )
        return [adam, disc_adam]

    def _autoencoder(self) -> list[nn.Module]:
        return [self.encoder, self.decoder, self.quantize, self.quant_conv, self.post_quant_conv]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the state that an exact resume needs.

        This is the number of batches, because Lightning's global_step counts both optimizers, and the idle
        counts of the codebook, which are not weights in published checkpoints.
        """
        checkpoint["first_stage"] = {"steps": self._steps, "idle": self.quantize.idle.clone()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the batch count and the idle counts of the codebook."""
        if "first_stage" in checkpoint:  # absent from published checkpoints
            self._steps = checkpoint["first_stage"]["steps"]
            self.quantize.idle.copy_(checkpoint["first_stage"]["idle"])

    @torch.no_grad()
    def log_images(self, batch: Batch, n: int) -> dict[str, Tensor]:
        """Return the columns of the preview grid for the first `n` images, (n, 3, H, W) in [-1, 1]."""
        image = batch[self.image_key][:n]
        return {"input": image, "reconstruction": self(image)[0].clamp(-1, 1)}


class VQModelInterface(VQModel):
    """First stage as used by the diffusion model, which freezes it; trained as `VQModel`.

    Args (the YAML's keys, in addition to those of `VQModel`):
        patch: patch size of a pixel-unshuffle of the latent into channels: a UNet at 64x64 x 3 costs four
            times as much as one at 32x32 x 12. 1 leaves the latent unchanged (published).
    """

    def __init__(
        self,
        embed_dim: int,
        n_embed: int,
        ddconfig: Mapping[str, Any],
        lossconfig: Mapping[str, Any] | None = None,
        ckpt_path: str | None = None,
        monitor: str | None = None,
        patch: int = 1,
    ) -> None:
        super().__init__(
            ddconfig,
            lossconfig or {"target": "torch.nn.Identity"},
            n_embed,
            embed_dim,
            ckpt_path,
            monitor=monitor,
        )
        self.patch = patch
        self.factor *= patch

    def encode(self, image: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] to the latent before quantization, (B, D*patch^2, H/f, W/f)."""
        return F.pixel_unshuffle(super().encode(image), self.patch)

    def decode(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        """Quantize z (B, D*patch^2, h, w) unless `force_not_quantize`; decode it to (B, 3, f*h, f*w)."""
        return super().decode(F.pixel_shuffle(z, self.patch), force_not_quantize)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction of image (B, 3, H, W), the codebook loss and the indices (B, H/f, W/f)."""
        return self._through_codebook(super().encode(image))

    def _through_codebook(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized, codebook_loss, indices = self.quantize(z)
        return super().decode(quantized, force_not_quantize=True), codebook_loss, indices
