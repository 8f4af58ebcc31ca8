"""Denoising loss: the prediction target (eps or v), timestep weights and the attention loss.

Notation: xt = signal x0 + sigma eps, with signal^2 + sigma^2 = 1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.layers import full_precision


class Levels(NamedTuple):
    """Signal and noise levels of xt for each image of a batch."""

    signal: Tensor  # B 1 1 1: sqrt(alpha_bar)
    sigma: Tensor  # B 1 1 1: sqrt(1 - alpha_bar)

    def mix(self, x0: Tensor, eps: Tensor) -> Tensor:
        """Return xt = signal x0 + sigma eps, (B, C, h, w) (DDPM, equation 4)."""
        return self.signal * x0 + self.sigma * eps


@dataclass(frozen=True)
class Parameterization:
    """The quantity that the network predicts.

    Attributes:
        name: "eps", the noise (published); or "v" = signal eps - sigma x0 (arXiv 2202.00512, section 4).

    Raises:
        ValueError: another name.
    """

    name: str = "eps"

    def __post_init__(self) -> None:
        if self.name not in ("eps", "v"):
            raise ValueError(f"parameterization must be 'eps' or 'v', got {self.name!r}")

    def target(self, x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
        """Return the regression target (B, C, h, w) of the network."""
        return eps if self.name == "eps" else levels.signal * eps - levels.sigma * x0

    def eps(self, out: Tensor, xt: Tensor, levels: Levels) -> Tensor:
        """Convert the network's output to the noise (B, C, h, w): eps = signal v + sigma xt."""
        return out if self.name == "eps" else levels.signal * out + levels.sigma * xt


def min_snr_weights(alpha_bar: Tensor, gamma: float, parameterization: str) -> Tensor:
    """Return the min-SNR-gamma weights (T,) of the squared error (arXiv 2303.09556, section 3.4).

    min(SNR, gamma) / SNR where the network predicts eps, min(SNR, gamma) / (SNR + 1) where it predicts v,
    with SNR = alpha_bar / (1 - alpha_bar); normalized to mean 1, so that the learning rate stays comparable.

    Raises:
        ValueError: `gamma` is not positive.
    """
    if gamma <= 0:
        raise ValueError(f"min_snr_gamma must be positive, or 0 to disable it, got {gamma}")
    snr = alpha_bar / (1 - alpha_bar)
    weights = snr.clamp(max=gamma) / (snr if parameterization == "eps" else snr + 1)
    return (weights / weights.mean()).to(torch.float32)


class DenoisingLoss(nn.Module):
    """Weighted squared error, plus an optional attention loss.

    Args:
        timestep_weights: weight of each timestep, (T,); None for uniform weights.
        attention_weight: weight of the attention loss; 0 disables it.
        attention_l2: use a squared error instead of cross-entropy in the attention loss.
    """

    timestep_weights: Tensor | None

    def __init__(self, timestep_weights: Tensor | None, attention_weight: float, attention_l2: bool) -> None:
        super().__init__()
        self.register_buffer("timestep_weights", timestep_weights, persistent=False)
        self.attention_weight, self.attention_l2 = attention_weight, attention_l2

    def forward(
        self, out: Tensor, target: Tensor, t: Tensor, logits: list[Tensor] | None, mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts by name: loss_simple, loss_attn (with logits only), loss.

        Args:
            out, target: prediction and target, (B, C, h, w).
            t: timesteps (B,).
            logits: attention logits of each style attention, (B, R, h, w); None without an attention loss.
            mask: (B, R, H, W).
        """
        errors = (out - target).square().mean((1, 2, 3))  # (B,)
        simple = errors.mean()
        loss = simple if self.timestep_weights is None else (self.timestep_weights[t] * errors).mean()
        parts = {"loss_simple": simple}
        if logits is not None:
            parts["loss_attn"] = self.attention_weight * self._of_attention(logits, mask)
            loss = loss + parts["loss_attn"]
        parts["loss"] = loss
        return loss, {name: value.detach() for name, value in parts.items()}

    def _of_attention(self, logits: list[Tensor], mask: Tensor) -> Tensor:
        """Return the loss between each layer's logits (B, R, h, w) and the mask, summed over layers."""
        compare = F.mse_loss if self.attention_l2 else F.binary_cross_entropy_with_logits
        losses = [
            compare(full_precision(layer), F.interpolate(mask, layer.shape[-2:], mode="nearest"))
            for layer in logits
        ]
        return torch.stack(losses).sum()
