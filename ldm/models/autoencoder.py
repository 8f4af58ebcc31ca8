"""The first stage: an autoencoder with a codebook, between pixels and latents."""

import warnings
from collections.abc import Mapping
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.state_dict import load_weights
from ldm.models.autoencoder_init import carry_colours, whiten
from ldm.models.optimizers import annealed
from ldm.modules.vqgan import Codebook, Decoder, Encoder
from ldm.targets import instantiate_from_config

Batch = Mapping[str, Any]


class VQModel(pl.LightningModule):
    """VQ-F4 and its kin, with their training.

    Args (the YAML's keys):
        ddconfig: arguments of `Encoder` and `Decoder`.
        lossconfig: target of the loss, `ldm.modules.losses.VQLoss` or one with its signature.
        n_embed: entries of the codebook.
        embed_dim: channels of the latent.
        ckpt_path: weights to start from.
        image_key: the entry of a batch that is autoencoded.
        monitor: the logged value by which the best checkpoint is chosen.
        revive_after: training batches after which an unused entry of the codebook moves to where latents are,
            so that a short training does not leave most of it unused; 0 for never, as published.
        anneal_steps: steps in which the learning rate falls to zero; 0 keeps it, as published.
        start_from_means: begin as the autoencoder that averages the colours of each place, with latents of unit
            covariance (`ldm.models.autoencoder_init`); wants `norm_groups: 0`. False starts at random, as published.

        scale_equivariance: weight of the L1 between the image at half size and what the decoder makes of the latent
            at half size (arXiv 2502.14831): latents without detail that the decoder alone can read are easier to
            denoise. 0 for none, as published.

    Raises:
        ValueError: `anneal_steps` together with a discriminator, or `start_from_means` of a network that cannot.
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
        revive_after: int = 0,
        anneal_steps: int = 0,
        start_from_means: bool = False,
        scale_equivariance: float = 0.0,
    ) -> None:
        super().__init__()
        self.anneal_steps = anneal_steps
        self.scale_equivariance = scale_equivariance
        self.revive_after = revive_after
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
            carry_colours(self.encoder, self.decoder)
        # Two optimisers take turns, which Lightning leaves to us.
        self.automatic_optimization = self._discriminator is None
        if anneal_steps and not self.automatic_optimization:
            raise ValueError("anneal_steps is for a loss without discriminator; set it, or disc_weight, to 0")
        self._steps = 0
        if ckpt_path is not None:
            load_weights(self, read_checkpoint(ckpt_path).state_dict, ignore_prefixes=("loss.",))
            self.quantize.idle.zero_()  # a trained codebook is not to be moved by the first batch

    @property
    def _discriminator(self) -> nn.Module | None:
        return getattr(self.loss, "discriminator", None)

    def encode(self, image: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] to the latent before quantisation, (B, D, H/f, W/f)."""
        return self.quant_conv(self.encoder(image))

    def decode(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        """Quantise z (B, D, h, w), unless told not to, and map it to an image (B, 3, f*h, f*w) in about [-1, 1]."""
        return self.decoder(self.post_quant_conv(z if force_not_quantize else self.quantize.quantize(z)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct image (B, 3, H, W); return it with the codebook loss and the indices (B, h, w)."""
        return self._through_codebook(self.encode(image))

    def _through_codebook(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantised, codebook_loss, indices = self.quantize(z)
        return self.decode(quantised, force_not_quantize=True), codebook_loss, indices

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
        """Take one step of the autoencoder and, where there is one, of the discriminator."""
        image = batch[self.image_key]
        if self._to_whiten and self._steps == 0:
            whiten(self.quant_conv, self.post_quant_conv, self.encoder(image))
        z = self.encode(image)
        if self.revive_after:
            self.quantize.revive(z, self.revive_after)
        output = self._through_codebook(z)
        if self.automatic_optimization:
            loss, log = self._losses(image, output, 0, "train")
            if self.scale_equivariance:
                log["train/scale_loss"] = self._scale_loss(image, z)
                loss = loss + self.scale_equivariance * log["train/scale_loss"]
        else:
            loss, log = self._step_both(image, output)
        self._steps += 1
        self.log("train/loss", loss.detach(), prog_bar=True)
        share, perplexity = self.quantize.use(output[2])
        self.log("train/codebook_use", share)
        self.log("train/codebook_perplexity", perplexity)
        self.log_dict(log)
        return loss

    def _scale_loss(self, image: Tensor, z: Tensor) -> Tensor:
        """Return the L1 of the decoded half-size latent to the half-size image (equation 4 of arXiv 2502.14831)."""
        small = self.decode(F.avg_pool2d(z, 2), force_not_quantize=True)  # (B, 3, H/2, W/2)
        return F.l1_loss(small, F.avg_pool2d(image, 2))

    def _step_both(
        self, image: Tensor, output: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Take a step of the autoencoder and one of the discriminator; return the autoencoder's loss, and the logs.

        Both judge the same reconstructions. No parameter has a gradient from both losses, so one backward pass
        serves for both; data-parallel training expects exactly one, in which every parameter takes part.
        """
        generator, discriminator = self.optimizers()  # type: ignore[attr-defined]
        judge = self._discriminator
        assert judge is not None  # else the optimisation is automatic
        judge.requires_grad_(False)  # the autoencoder's loss passes through it and leaves it alone
        loss, log = self._losses(image, output, 0, "train")
        judge.requires_grad_(True)
        disc_loss, disc_log = self._losses(image, output, 1, "train")
        generator.zero_grad()
        discriminator.zero_grad()
        self.manual_backward(loss + disc_loss)
        generator.step()
        discriminator.step()
        return loss, log | disc_log

    def on_train_start(self) -> None:
        """Warn about a run that ends before its discriminator joins."""
        # Under our name, or taming-transformers'.
        start = getattr(self.loss, "disc_start", getattr(self.loss, "discriminator_iter_start", 0))
        last = self.trainer.max_steps
        if self._discriminator is not None and 0 <= last <= 2 * start:
            warnings.warn(
                f"lightning.trainer.max_steps is {last}, two for each batch, but the discriminator joins at batch "
                f"{start}: it never will; set max_steps above {2 * start}",
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
        """Return Adam with the published betas, one for the autoencoder, one for the discriminator."""
        own = chain(*(m.parameters() for m in self._autoencoder()))
        adam = torch.optim.Adam(own, lr=self.learning_rate, betas=(0.5, 0.9))
        if self._discriminator is None:
            return annealed(adam, self.anneal_steps)
        judge = torch.optim.Adam(self._discriminator.parameters(), lr=self.learning_rate, betas=(0.5, 0.9))
        return [adam, judge]

    def _autoencoder(self) -> list[nn.Module]:
        return [self.encoder, self.decoder, self.quantize, self.quant_conv, self.post_quant_conv]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed run needs to go on exactly.

        The batches seen, since with two optimisers Lightning's global_step counts twice; and the codebook's idle
        entries, which the weights of published checkpoints have no place for.
        """
        checkpoint["first_stage"] = {"steps": self._steps, "idle": self.quantize.idle.clone()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting from where the checkpoint was written."""
        if "first_stage" in checkpoint:  # not in published ones
            self._steps = checkpoint["first_stage"]["steps"]
            self.quantize.idle.copy_(checkpoint["first_stage"]["idle"])

    @torch.no_grad()
    def log_images(self, batch: Batch, n: int) -> dict[str, Tensor]:
        """Return the columns of a picture grid for the first `n` images, (n, 3, H, W) in [-1, 1]."""
        image = batch[self.image_key][:n]
        return {"input": image, "reconstruction": self(image)[0].clamp(-1, 1)}


class VQModelInterface(VQModel):
    """The first stage as the diffusion uses it: frozen by its owner, trained as `VQModel`.

    Args (the YAML's keys, beside those of `VQModel`):
        patch: side of the squares of latent pixels that become the channels of one: a UNet at 64x64 x 3 costs four
            times one at 32x32 x 12. 1 leaves the latent as it is, as published.
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
        """Map image (B, 3, H, W) in [-1, 1] to the latent before quantisation, (B, D*patch^2, H/f, W/f)."""
        return F.pixel_unshuffle(super().encode(image), self.patch)

    def decode(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        """Quantise z (B, D*patch^2, h, w), unless told not to, and map it to an image (B, 3, f*h, f*w)."""
        return super().decode(F.pixel_shuffle(z, self.patch), force_not_quantize)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct image (B, 3, H, W); return it with the codebook loss and the indices (B, H/f, W/f)."""
        return self._through_codebook(super().encode(image))

    def _through_codebook(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantised, codebook_loss, indices = self.quantize(z)
        return super().decode(quantised, force_not_quantize=True), codebook_loss, indices
