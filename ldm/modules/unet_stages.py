"""The stages of the UNet: the layers between two skip connections, and how encoder and decoder stack them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ldm.modules.attention import SpatialTransformer, StyleConditioning
from ldm.modules.layers import Downsample, Upsample, conv3x3
from ldm.modules.region_mask import RegionMask
from ldm.modules.res_block import BlockModulation, Resample, ResBlock, SpadeResBlock

LayerConditioning = BlockModulation | list[StyleConditioning] | None


class Stage(nn.Sequential):
    """The layers between two skip connections; gives each what it takes besides the features."""

    def condition(self, style: Tensor, mask: RegionMask, size: tuple[int, int]) -> list[LayerConditioning]:
        """Compute the conditioning of each layer for features of `size`."""
        parts: list[LayerConditioning] = []
        for layer in self:
            if isinstance(layer, SpadeResBlock):
                parts.append(layer.condition(mask, size))
            elif isinstance(layer, SpatialTransformer):
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
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, part, logits)
            elif isinstance(layer, ResBlock):
                x = layer(x, emb)
            else:
                x = layer(x)
        return x

    def size_after(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (h, w) of what leaves the stage for features of `size`."""
        for layer in self:
            how = getattr(layer, "how", "none")
            if isinstance(layer, Downsample) or how == "down":
                size = (size[0] // 2, size[1] // 2)
            elif isinstance(layer, Upsample) or how == "up":
                size = (2 * size[0], 2 * size[1])
        return size


@dataclass(frozen=True)
class Residuals:
    """What all residual blocks of a UNet have in common; see their own arguments."""

    time_channels: int
    num_regions: int
    dropout: float
    scale_shift: bool
    groups: int
    spade_hidden: int

    def plain(self, channels: int, out: int, how: Resample = "none") -> ResBlock:
        """Return one that does not see the mask."""
        return ResBlock(
            channels,
            out,
            self.time_channels,
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            how=how,
            groups=self.groups,
        )

    def spade(self, channels: int, out: int, how: Resample = "none") -> SpadeResBlock:
        """Return one that the mask modulates."""
        return SpadeResBlock(
            channels,
            out,
            self.time_channels,
            self.num_regions,
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            how=how,
            groups=self.groups,
            hidden=self.spade_hidden,
        )


@dataclass(frozen=True)
class Transformers:
    """What all transformers of a UNet have in common; of `head_channels` and `heads` one is -1.

    Raises:
        ValueError: not exactly one of the two is given, or a code does not divide into its tokens.
    """

    context_dim: int
    tokens: int
    depth: int
    head_channels: int
    heads: int
    masked: bool
    groups: int

    def __post_init__(self) -> None:
        if (self.head_channels == -1) == (self.heads == -1):
            raise ValueError(
                "give one of num_head_channels and num_heads: the other follows from the channels"
            )
        if self.tokens < 1 or self.context_dim % self.tokens:
            raise ValueError(
                f"style_tokens is {self.tokens}; wanted a number into which context_dim, {self.context_dim}, divides"
            )

    def on(self, channels: int) -> SpatialTransformer:
        """Return one for features of `channels`; ValueError if they do not divide into heads."""
        size = self.head_channels
        heads = self.heads if size == -1 else channels // size
        if heads == 0 or channels % heads or (size != -1 and channels % size):
            raise ValueError(
                f"{channels} channels do not divide into heads of {size} channels"
                if size != -1
                else f"{channels} channels do not divide into {heads} heads"
            )
        return SpatialTransformer(
            channels, self.context_dim, heads, self.depth, self.masked, self.tokens, self.groups
        )


@dataclass(frozen=True)
class Layout:
    """How a UNet's stages follow each other.

    Attributes:
        widths: channels of each level, the full resolution first.
        attention_resolutions: downsampling factors at which transformers stand.
        blocks: residual blocks of a level of the encoder; the decoder has one more.
        residual_resampling: resample by residual blocks instead of convolutions.
        residuals, transformers: what the stages consist of.
    """

    widths: Sequence[int]
    attention_resolutions: Sequence[int]
    blocks: int
    residual_resampling: bool
    residuals: Residuals
    transformers: Transformers

    def encoder(self, in_channels: int, channels: int) -> tuple[nn.ModuleList, list[int]]:
        """Return the encoder's stages, the first with `channels`, and the channels that each of them puts out."""
        stages, skips = nn.ModuleList([Stage(conv3x3(in_channels, channels))]), [channels]
        for level, width in enumerate(self.widths):
            for _ in range(self.blocks):
                stages.append(Stage(self.residuals.plain(skips[-1], width), *self._attention(level)))
                skips.append(width)
            if level < len(self.widths) - 1:
                stages.append(Stage(self._halve(width)))
                skips.append(width)
        return stages, skips

    def middle(self) -> Stage:
        """Return the stage between encoder and decoder."""
        width = self.widths[-1]
        return Stage(
            self.residuals.spade(width, width),
            self.transformers.on(width),
            self.residuals.spade(width, width),
        )

    def decoder(self, skips: Sequence[int]) -> nn.ModuleList:
        """Return the decoder's stages, each of which also takes in what one of the encoder's put out, last first."""
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
        """Return the transformer of a level's block, where it has one."""
        has_one = 2**level in self.attention_resolutions
        return [self.transformers.on(self.widths[level])] if has_one else []

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
