"""Stages of the UNet, the layers between two skip connections, and their layout."""

from collections.abc import Sequence
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor, nn

from ldm.modules.attention import SpatialTransformer, StyleConditioning
from ldm.modules.layers import Downsample, Upsample, conv3x3, zero_init
from ldm.modules.region_mask import RegionMask
from ldm.modules.res_block import BlockModulation, Resample, ResBlock, SpadeResBlock

LayerConditioning = BlockModulation | list[StyleConditioning] | Tensor | None


class StyleInput(nn.Module):
    """Adds a convolution of the style at each latent pixel to the features; initially the identity.

    The style grid reaches the transformers at half the latents' resolution or less. Here it enters at their
    own, so that colors need not be found by attention.
    """

    def __init__(self, token: int, channels: int) -> None:
        super().__init__()
        self.token = token
        self.conv = zero_init(conv3x3(token, channels))

    def condition(self, style: Tensor, mask: RegionMask, size: tuple[int, int]) -> Tensor:
        """Map style (B, R, D) to the features to add, (B, C, h, w)."""
        mixed = mask.interpolate_codes(style.reshape(style.shape[0], -1, self.token), size)  # (B, h*w, d)
        return self.conv(rearrange(mixed, "b (h w) d -> b d h w", h=size[0]))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return x + style


class Stage(nn.Sequential):
    """The layers between two skip connections; passes each layer its conditioning."""

    def condition(self, style: Tensor, mask: RegionMask, size: tuple[int, int]) -> list[LayerConditioning]:
        """Compute the conditioning of each layer for features of `size`."""
        parts: list[LayerConditioning] = []
        for layer in self:
            if isinstance(layer, SpadeResBlock):
                parts.append(layer.condition(mask, size))
            elif isinstance(layer, SpatialTransformer | StyleInput):
                parts.append(layer.condition(style, mask, size))
            else:
                parts.append(None)
        return parts

    def forward(  # type: ignore[override]
        self, x: Tensor, emb: Tensor, parts: list[LayerConditioning], logits: list[Tensor] | None = None
    ) -> Tensor:
        """Map (B, C, h, w) to (B, C', h', w')."""
        for layer, part in zip(self, parts, strict=True):
            if isinstance(layer, SpadeResBlock):
                x = layer(x, emb, part)
            elif isinstance(layer, StyleInput):
                x = layer(x, part)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, part, logits)
            elif isinstance(layer, ResBlock):
                x = layer(x, emb)
            else:
                x = layer(x)
        return x

    def size_after(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the output size (h, w) of the stage for features of `size`."""
        for layer in self:
            resampling = getattr(layer, "resampling", "none")
            if isinstance(layer, Downsample) or resampling == "down":
                size = (size[0] // 2, size[1] // 2)
            elif isinstance(layer, Upsample) or resampling == "up":
                size = (2 * size[0], 2 * size[1])
        return size


@dataclass(frozen=True)
class Residuals:
    """Arguments shared by all residual blocks of a UNet."""

    time_channels: int
    num_regions: int
    dropout: float
    scale_shift: bool
    groups: int
    spade_hidden: int

    def plain(self, channels: int, out: int, resampling: Resample = "none") -> ResBlock:
        """Build a block without mask conditioning."""
        return ResBlock(
            channels,
            out,
            self.time_channels,
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            resampling=resampling,
            groups=self.groups,
        )

    def spade(self, channels: int, out: int, resampling: Resample = "none") -> SpadeResBlock:
        """Build a block that is modulated by the mask."""
        return SpadeResBlock(
            channels,
            out,
            self.time_channels,
            self.num_regions,
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            resampling=resampling,
            groups=self.groups,
            hidden=self.spade_hidden,
        )


@dataclass(frozen=True)
class Transformers:
    """Arguments shared by all transformers of a UNet; one of `head_channels` and `heads` is -1.

    Raises:
        ValueError: both or neither of them are given.
    """

    context_dim: int
    depth: int
    head_channels: int
    heads: int
    masked: bool
    groups: int

    def __post_init__(self) -> None:
        if (self.head_channels == -1) == (self.heads == -1):
            raise ValueError(
                "give exactly one of num_head_channels and num_heads: the other follows from the channels"
            )

    def on(self, channels: int) -> SpatialTransformer:
        """Build a transformer for `channels`; raise ValueError if they are not divisible into heads."""
        size = self.head_channels
        heads = self.heads if size == -1 else channels // size
        if heads == 0 or channels % heads or (size != -1 and channels % size):
            raise ValueError(
                f"{channels} channels are not divisible by num_head_channels = {size}"
                if size != -1
                else f"{channels} channels are not divisible by num_heads = {heads}"
            )
        return SpatialTransformer(channels, self.context_dim, heads, self.depth, self.masked, self.groups)


@dataclass(frozen=True)
class Layout:
    """Sequence of the stages of a UNet.

    Attributes:
        widths: channels of each level, highest resolution first.
        attended: whether each level has transformers.
        blocks: residual blocks per level of the encoder; the decoder has one more.
        residual_resampling: resample with residual blocks instead of convolutions.
        residuals, transformers: arguments of the layers.
        style_input: let the style enter the first stage, too.
    """

    widths: Sequence[int]
    attended: Sequence[bool]
    blocks: int
    residual_resampling: bool
    residuals: Residuals
    transformers: Transformers
    style_input: bool = False

    def encoder(self, in_channels: int, channels: int) -> tuple[nn.ModuleList, list[int]]:
        """Build the encoder's stages, the first with `channels`, and return them with their output channels."""
        style = [StyleInput(self.transformers.context_dim, channels)] if self.style_input else []
        stages, skips = nn.ModuleList([Stage(conv3x3(in_channels, channels), *style)]), [channels]
        for level, width in enumerate(self.widths):
            for _ in range(self.blocks):
                stages.append(Stage(self.residuals.plain(skips[-1], width), *self._attention(level)))
                skips.append(width)
            if level < len(self.widths) - 1:
                stages.append(Stage(self._halve(width)))
                skips.append(width)
        return stages, skips

    def middle(self) -> Stage:
        """Build the stage between encoder and decoder."""
        width = self.widths[-1]
        return Stage(
            self.residuals.spade(width, width),
            self.transformers.on(width),
            self.residuals.spade(width, width),
        )

    def decoder(self, skips: Sequence[int]) -> nn.ModuleList:
        """Build the decoder's stages; each takes one of the encoder's outputs as skip input, last first."""
        waiting, channels, stages = list(skips), self.widths[-1], nn.ModuleList()
        for level, width in reversed(list(enumerate(self.widths))):
            for block in range(self.blocks + 1):
                layers = [self.residuals.spade(channels + waiting.pop(), width), *self._attention(level)]
                if level > 0 and block == self.blocks:
                    layers.append(self._double(width))
                stages.append(Stage(*layers))
                channels = width
        return stages

    def _attention(self, level: int) -> list[nn.Module]:
        """Build the transformer of a block, if its level has one."""
        return [self.transformers.on(self.widths[level])] if self.attended[level] else []

    def _halve(self, channels: int) -> nn.Module:
        return (
            self.residuals.plain(channels, channels, "down")
            if self.residual_resampling
            else Downsample(channels)
        )

    def _double(self, channels: int) -> nn.Module:
        return (
            self.residuals.spade(channels, channels, "up") if self.residual_resampling else Upsample(channels)
        )
