"""Layers shared by the networks: norms, resampling and the timestep embedding."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group normalization in float32, also under mixed precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, ...) over each group of channels."""
        if x.dtype == torch.float32:
            return super().forward(x)
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def full_precision(x: Tensor) -> Tensor:
    """Convert half precision to float32: networks compute in it, everything between them does not."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def group_norm(groups: int, channels: int, eps: float) -> nn.Module:
    """Return a `GroupNorm`, or the identity for 0 groups."""
    return GroupNorm(groups, channels, eps=eps) if groups else nn.Identity()


class Downsample(nn.Module):
    """Halve height and width by a stride-2 convolution (`op` in published checkpoints)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = conv3x3(channels, channels, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h/2, w/2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Double height and width by repeating pixels, then a convolution (`conv` in published checkpoints)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2h, 2w)."""
        return self.conv(repeat_pixels(x))


def conv3x3(channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size, or halves it with stride 2."""
    return nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1)


def repeat_pixels(x: Tensor) -> Tensor:
    """Double height and width of (B, C, h, w) by nearest neighbor."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def zero_init(module: nn.Module) -> nn.Module:
    """Set every parameter of `module` to zero, so that a residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def embed_timesteps(t: Tensor, width: int, period: float = 10000.0) -> Tensor:
    """Embed integer timesteps (B,) in sinusoids (B, width), cosines first.

    Vaswani et al., arXiv 1706.03762, section 3.5, with frequencies period^(-i / (width/2)).
    """
    half = width // 2
    frequencies = torch.exp(
        -math.log(period) / half * torch.arange(half, dtype=torch.float32, device=t.device)
    )
    angles = t[:, None].float() * frequencies  # (B, half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, 2*half)
    return F.pad(embedding, (0, width - 2 * half))
