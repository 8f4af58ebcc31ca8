"""Residual blocks of the UNet: plain in the encoder, SPADE in the middle and decoder."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.layers import GroupNorm, conv3x3, repeat_pixels, zero_init
from ldm.modules.region_mask import RegionMask
from ldm.modules.spade import Modulation, SpadeNorm

Resample = Literal["none", "up", "down"]
Norm = Callable[[Tensor], Tensor]


class BlockModulation(NamedTuple):
    """The modulation of both norms of a SPADE residual block."""

    first: Modulation
    second: Modulation


class TimeResBlock(nn.Module):
    """Base of both residual blocks: norm, SiLU, conv; time embedding; norm, SiLU, dropout, conv; skip connection.

    Attribute names match the published checkpoints. `in_layers` ends with the first convolution, `out_layers`
    with dropout and the second one; subclasses add the norms.
    """

    in_layers: nn.Sequential
    out_layers: nn.Sequential

    def __init__(
        self, channels: int, out_channels: int, time_channels: int, scale_shift: bool, resampling: Resample
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resampling: Resample = resampling
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, out_channels * (1 + scale_shift)))
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def _run(self, x: Tensor, emb: Tensor, in_norm: Norm, out_norm: Norm) -> Tensor:
        *_, in_conv = self.in_layers
        *_, dropout, out_conv = self.out_layers
        h = in_conv(resample(F.silu(in_norm(x)), self.resampling))  # (B, C', h', w')
        time = self.emb_layers(emb)[:, :, None, None]  # (B, C', 1, 1), or (B, 2C', 1, 1) with scale and shift
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = out_norm(h) * (1 + scale) + shift  # (B, C', h', w')
        else:
            h = out_norm(h + time)  # (B, C', h', w')
        return self.skip_connection(resample(x, self.resampling)) + out_conv(dropout(F.silu(h)))


class ResBlock(TimeResBlock):
    """Residual block of the encoder, without mask conditioning; initially equal to its skip connection."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        time_channels: int,
        *,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resampling: Resample = "none",
        groups: int = 32,
    ) -> None:
        """Build the block; with `scale_shift` the time embedding scales and shifts the second norm's output."""
        super().__init__(channels, out_channels, time_channels, scale_shift, resampling)
        self.in_layers = nn.Sequential(
            GroupNorm(groups, channels), nn.SiLU(), conv3x3(channels, out_channels)
        )
        self.out_layers = nn.Sequential(
            GroupNorm(groups, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_init(conv3x3(out_channels, out_channels)),
        )

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, C, h, w) and the time embedding (B, T) to (B, C', h', w')."""
        return self._run(x, emb, self.in_layers[0], self.out_layers[0])


class SpadeResBlock(TimeResBlock):
    """Residual block whose norms are modulated by the mask (arXiv 2207.00050)."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        time_channels: int,
        num_regions: int,
        *,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resampling: Resample = "none",
        groups: int = 32,
        hidden: int = 128,
    ) -> None:
        """Build the block for a mask of `num_regions`; other arguments as in `ResBlock`."""
        super().__init__(channels, out_channels, time_channels, scale_shift, resampling)
        self.in_norm = SpadeNorm(channels, num_regions, groups, hidden)
        self.in_layers = nn.Sequential(nn.SiLU(), conv3x3(channels, out_channels))
        self.out_norm = SpadeNorm(out_channels, num_regions, groups, hidden)
        self.out_layers = nn.Sequential(
            nn.SiLU(), nn.Dropout(dropout), zero_init(conv3x3(out_channels, out_channels))
        )

    def condition(self, mask: RegionMask, size: tuple[int, int]) -> BlockModulation:
        """Compute the modulation of both norms for an input of `size`."""
        out_size = (2 * size[0], 2 * size[1]) if self.resampling == "up" else size
        return BlockModulation(self.in_norm.condition(mask, size), self.out_norm.condition(mask, out_size))

    def forward(self, x: Tensor, emb: Tensor, modulation: BlockModulation) -> Tensor:
        """Map x (B, C, h, w) and the time embedding (B, T) to (B, C', h', w')."""
        return self._run(
            x,
            emb,
            lambda h: self.in_norm(h, modulation.first),
            lambda h: self.out_norm(h, modulation.second),
        )


def resample(x: Tensor, resampling: Resample) -> Tensor:
    """Resample (B, C, h, w): nearest neighbor ("up"), 2x2 average pooling ("down") or identity ("none")."""
    if resampling == "up":
        return repeat_pixels(x)
    return F.avg_pool2d(x, 2) if resampling == "down" else x
