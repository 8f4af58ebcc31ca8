"""Losses of the first stage."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.discriminator import PatchDiscriminator
from ldm.modules.efficientnet import PerceptualDistance
from ldm.modules.layers import full_precision
from ldm.modules.lpips import load_lpips


class VQLoss(nn.Module):
    """L1, perceptual and codebook loss, with a hinge PatchGAN after `disc_start` (VQGAN, arXiv 2012.09841, sec. 3.1).

    Args (the YAML's keys):
        codebook_weight: weight of the codebook loss.
        l2_weight: weight of an additional squared error, which penalizes errors in rare colors more.
        disc_weight: weight of the adversarial loss; 0 trains without a discriminator.
        disc_start: batch at which adversarial training starts.
        disc_channels, disc_num_layers: size of the discriminator.
        perceptual_network: torchvision's checkpoint of VGG16 (vgg16-397923af.pth, or AlexNet's) for LPIPS, or
            "efficientnet-lite0" for `ldm.modules.efficientnet.PerceptualDistance`; null disables it.
        perceptual_weight: weight of the perceptual distance.

    Raises:
        CheckpointError: `perceptual_network` is missing or another file.
    """

    def __init__(
        self,
        codebook_weight: float = 1.0,
        disc_weight: float = 0.0,
        disc_start: int = 0,
        disc_channels: int = 64,
        disc_num_layers: int = 3,
        l2_weight: float = 0.0,
        perceptual_network: str | None = None,
        perceptual_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.perceptual_weight = perceptual_weight
        # A tuple keeps it out of the parameters and the checkpoints.
        self._perceptual = (_perceptual(perceptual_network),) if perceptual_network else ()
        self.l2_weight = l2_weight
        self.codebook_weight = codebook_weight
        self.disc_weight = disc_weight
        self.disc_start = disc_start
        self.discriminator = (
            PatchDiscriminator(3, disc_channels, disc_num_layers) if disc_weight > 0 else None
        )

    def forward(
        self,
        codebook_loss: Tensor,
        inputs: Tensor,
        reconstructions: Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: Tensor | None = None,
        split: str = "train",
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the autoencoder (`optimizer_idx` 0) or the discriminator (1), and the metrics to log.

        The signature is that of the losses in taming-transformers, which a YAML may use instead.
        """
        if optimizer_idx == 1:
            return self._discriminator_loss(inputs, reconstructions, global_step, split)
        rec = F.l1_loss(reconstructions, inputs)
        log = {"rec_loss": rec, "quant_loss": codebook_loss}
        reconstruction_loss = rec
        for network in self._perceptual:
            log["p_loss"] = network.to(inputs.device)(reconstructions, inputs).mean()
            reconstruction_loss = reconstruction_loss + self.perceptual_weight * log["p_loss"]
        if self.l2_weight:
            reconstruction_loss = reconstruction_loss + self.l2_weight * F.mse_loss(reconstructions, inputs)
        loss = reconstruction_loss + self.codebook_weight * codebook_loss
        if self.discriminator is not None and global_step >= self.disc_start:
            g_loss = -full_precision(self.discriminator(reconstructions)).mean()
            weight = self._balance(reconstruction_loss, g_loss, last_layer)
            loss = loss + self.disc_weight * weight * g_loss
            log |= {"g_loss": g_loss, "d_weight": weight}
        return loss, {f"{split}/{name}": value.detach() for name, value in log.items()}

    def _balance(self, reconstruction_loss: Tensor, g_loss: Tensor, last_layer: Tensor | None) -> Tensor:
        """Return the ratio of both losses' gradient norms at the last layer (equation 7 of the paper)."""
        if last_layer is None or not torch.is_grad_enabled():
            return reconstruction_loss.new_tensor(1.0)
        rec_grad = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)[0].norm()
        g_grad = torch.autograd.grad(g_loss, last_layer, retain_graph=True)[0].norm()
        return (rec_grad / (g_grad + 1e-4)).clamp(0, 1e4).detach()

    def _discriminator_loss(
        self, inputs: Tensor, reconstructions: Tensor, global_step: int, split: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.discriminator is None:
            raise ValueError(
                "the loss has no discriminator because disc_weight is 0; call it with optimizer_idx=0"
            )
        real = full_precision(self.discriminator(inputs.detach()))
        fake = full_precision(self.discriminator(reconstructions.detach()))
        active = float(global_step >= self.disc_start)
        loss = active * 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        log = {"disc_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
        return loss, {f"{split}/{name}": value.detach() for name, value in log.items()}


def _perceptual(network: str) -> nn.Module:
    """Build the perceptual distance named in the YAML."""
    return PerceptualDistance() if network == "efficientnet-lite0" else load_lpips(Path(network))
