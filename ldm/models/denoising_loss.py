"""What training minimises: the network's target (the noise, or v), the weight of each timestep, the attention loss.

All of it follows from xt = signal x0 + sigma eps with signal^2 + sigma^2 = 1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Levels(NamedTuple):
    """How much of xt is data and how much is noise, for each image of a batch."""

    signal: Tensor  # B 1 1 1: sqrt(alpha_bar)
    sigma: Tensor  # B 1 1 1: sqrt(1 - alpha_bar)

    def mix(self, x0: Tensor, eps: Tensor) -> Tensor:
        """Return xt, the data (B, C, h, w) with that much noise (DDPM, equation 4)."""
        return self.signal * x0 + self.sigma * eps


@dataclass(frozen=True)
class Parameterization:
    """What the network predicts.

    Attributes:
        name: "eps", the noise, as published; or "v" = signal eps - sigma x0 (arXiv 2202.00512, section 4).

    Raises:
        ValueError: another name.
    """

    name: str = "eps"

    def __post_init__(self) -> None:
        if self.name not in ("eps", "v"):
            raise ValueError(f"parameterization is {self.name!r}; wanted 'eps' or 'v'")

    def target(self, x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
        """Return what a perfect network would put out, (B, C, h, w)."""
        return eps if self.name == "eps" else levels.signal * eps - levels.sigma * x0

    def eps(self, out: Tensor, xt: Tensor, levels: Levels) -> Tensor:
        """Return the noise (B, C, h, w) that an output means for xt: signal v + sigma xt."""
        return out if self.name == "eps" else levels.signal * out + levels.sigma * xt


def min_snr_weights(alpha_bar: Tensor, gamma: float, parameterization: str) -> Tensor:
    """Return the min-SNR-gamma weights (T,) of the squared error (arXiv 2303.09556, section 3.4).

    min(SNR, gamma) / SNR where the network predicts eps, min(SNR, gamma) / (SNR + 1) where it predicts v, with
    SNR = alpha_bar / (1 - alpha_bar); scaled to a mean of 1, so that the learning rate keeps its meaning.

    Raises:
        ValueError: `gamma` is not positive.
    """
    if gamma <= 0:
        raise ValueError(f"min_snr_gamma is {gamma}; wanted 0 for none, or such as 5")
    snr = alpha_bar / (1 - alpha_bar)
    weights = snr.clamp(max=gamma) / (snr if parameterization == "eps" else snr + 1)
    return (weights / weights.mean()).to(torch.float32)


class DenoisingLoss(nn.Module):
    """Weighted squared error, plus the attention loss where it is asked for.

    Args:
        timestep_weights: (T,), how much each timestep counts; None where all count the same.
        attention_weight: of the attention loss; 0 for none.
        attention_l2: attention loss by squared error instead of cross-entropy.
    """

    timestep_weights: Tensor | None

    def __init__(self, timestep_weights: Tensor | None, attention_weight: float, attention_l2: bool) -> None:
        super().__init__()
        self.register_buffer("timestep_weights", timestep_weights, persistent=False)
        self.attention_weight, self.attention_l2 = attention_weight, attention_l2

    def forward(
        self, out: Tensor, target: Tensor, t: Tensor, logits: list[Tensor] | None, mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts by name: loss_simple, loss_attn where there are logits, loss.

        Args:
            out, target: what the network says and should have said, (B, C, h, w).
            t: timesteps (B,).
            logits: of each style attention, (B, R, h, w); None to leave attention alone.
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
        """Compare each layer's logits (B, R, h, w) with the mask; sum over layers."""
        compare = F.mse_loss if self.attention_l2 else F.binary_cross_entropy_with_logits
        losses = [compare(layer, F.interpolate(mask, layer.shape[-2:], mode="nearest")) for layer in logits]
        return torch.stack(losses).sum()
