"""What training minimises: the squared error of the network's output, and what its attention is told."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
