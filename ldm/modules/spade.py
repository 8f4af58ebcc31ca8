"""Spatially-adaptive normalization (Park et al., arXiv 1903.07291): the mask scales and shifts features."""

from typing import NamedTuple

from torch import Tensor, nn

from ldm.modules.layers import GroupNorm, conv3x3
from ldm.modules.region_mask import RegionMask


class Modulation(NamedTuple):
    """Scale and shift of a SPADE norm, which depend on the mask only."""

    scale: Tensor  # (B, C, h, w): 1 + gamma
    shift: Tensor  # (B, C, h, w): beta


class SpadeNorm(nn.Module):
    """GroupNorm(x) * (1 + gamma(mask)) + beta(mask), equation 1. Attribute names match published checkpoints."""

    def __init__(self, channels: int, num_regions: int, groups: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=1e-5, affine=False)
        self.mlp_shared = nn.Sequential(conv3x3(num_regions, hidden), nn.ReLU())
        self.mlp_gamma = conv3x3(hidden, channels)
        self.mlp_beta = conv3x3(hidden, channels)

    def condition(self, mask: RegionMask, size: tuple[int, int]) -> Modulation:
        """Compute scale and shift for features of `size`."""
        hidden = self.mlp_shared(mask.resize(size))  # (B, hidden, h, w)
        return Modulation(1 + self.mlp_gamma(hidden), self.mlp_beta(hidden))

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return self.norm(x) * modulation.scale + modulation.shift
