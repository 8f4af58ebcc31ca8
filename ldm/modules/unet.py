"""The noise predictor: style enters its encoder by mask attention, shape its middle and decoder by SPADE."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.modules.attention import SpatialTransformer, StyleConditioning
from ldm.modules.layers import Downsample, GroupNorm, Upsample, conv3x3, embed_timesteps, zero_init
from ldm.modules.region_mask import RegionMask
from ldm.modules.res_block import BlockModulation, Resample, ResBlock, SpadeResBlock

LayerConditioning = BlockModulation | list[StyleConditioning] | None


class Conditioning(NamedTuple):
    """Everything of one UNet pass that depends on style and mask alone: per stage, per layer."""

    encoder: list[list[LayerConditioning]]
    middle: list[LayerConditioning]
    decoder: list[list[LayerConditioning]]


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


class UNet(nn.Module):
    """Predicts the noise in a latent from the latent, the timestep, the regions' styles and the mask.

    Args (the YAML's keys):
        image_size: side of the latent in training; kept for those who sample, the network takes any size.
        in_channels, out_channels: channels of the latent.
        model_channels: channels at the full resolution; `channel_mult` multiplies them level by level.
        num_res_blocks: residual blocks of a level (the decoder has one more).
        attention_resolutions: downsampling factors at which transformers stand.
        context_dim: D, the size of one region's style code.
        num_classes: R, the number of regions.
        use_mask_attn: let a pixel attend only to the codes of the regions that the mask marks there.
        num_head_channels, num_heads: give one; channels of a head, or the number of heads.
        transformer_depth: blocks of one transformer.
        dropout: inside residual blocks.
        use_scale_shift_norm: the timestep scales and shifts, instead of being added.
        resblock_updown: residual blocks resample, instead of convolutions.
        use_checkpoint: recompute activations in the backward pass: less memory, a third more time.
        norm_groups: groups of every norm. A group of one channel would forget that channel's mean, and with it
            the timestep: narrow networks want fewer than the published 32.
        spade_hidden: channels between the mask and a SPADE norm's scale and shift. The published 128 cost a
            narrow network more than all else in it.
        mask_shares: reduce the mask to the share of a pixel that each region covers, not to the nearest label:
            small latents then know where edges and lips are, more finely than their pixels.
        style_grid: n; a region's code is n x n tokens of context_dim / n^2 numbers, for the places of a grid within the
            region (`ldm.modules.region_mask.places`), so that style may differ from place to place. 1 as published.
        use_spatial_transformer: the published YAMLs' key; only true exists.

    Raises:
        ValueError: settings that contradict each other.
    """

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        context_dim: int,
        num_classes: int,
        channel_mult: Sequence[int] = (1, 2, 4, 8),
        num_head_channels: int = -1,
        num_heads: int = -1,
        transformer_depth: int = 1,
        dropout: float = 0.0,
        use_mask_attn: bool = False,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_checkpoint: bool = False,
        norm_groups: int = 32,
        spade_hidden: int = 128,
        mask_shares: bool = False,
        style_grid: int = 1,
        use_spatial_transformer: bool = True,
    ) -> None:
        super().__init__()
        _check_settings(use_spatial_transformer, num_head_channels, num_heads)
        _check_grid(style_grid, use_mask_attn, context_dim)
        self.image_size = image_size
        self.model_channels = model_channels
        self.num_regions = num_classes
        self.use_mask_attn, self.mask_shares = use_mask_attn, mask_shares
        self.style_grid = style_grid
        self.use_checkpoint = use_checkpoint
        self._heads = (num_head_channels, num_heads)
        self.context_dim = context_dim
        self._transformer = (context_dim, transformer_depth)
        self._block = (dropout, use_scale_shift_norm)
        self._groups = norm_groups
        self._spade_hidden = spade_hidden
        self.factor = 2 ** (len(channel_mult) - 1)  # latents must be a multiple of it

        T = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, T), nn.SiLU(), nn.Linear(T, T))
        # Stored in published checkpoints, never used: kept out of training, so that data-parallel
        # training does not wait for its gradient.
        self.label_emb = nn.Embedding(num_classes, T).requires_grad_(False)

        channels, skips = self._build_encoder(
            in_channels, channel_mult, num_res_blocks, attention_resolutions, resblock_updown
        )
        self.middle_block = Stage(
            self._spade(channels, channels),
            self._attention(channels),
            self._spade(channels, channels),
        )
        channels = self._build_decoder(
            channels, skips, channel_mult, num_res_blocks, attention_resolutions, resblock_updown
        )
        self.out = nn.Sequential(
            GroupNorm(norm_groups, channels), nn.SiLU(), zero_init(conv3x3(channels, out_channels))
        )

    def _plain(self, channels: int, out: int, how: Resample = "none") -> ResBlock:
        dropout, scale_shift = self._block
        T = 4 * self.model_channels
        return ResBlock(
            channels, out, T, dropout=dropout, scale_shift=scale_shift, how=how, groups=self._groups
        )

    def _spade(self, channels: int, out: int, how: Resample = "none") -> SpadeResBlock:
        dropout, scale_shift = self._block
        return SpadeResBlock(
            channels,
            out,
            4 * self.model_channels,
            self.num_regions,
            dropout=dropout,
            scale_shift=scale_shift,
            how=how,
            groups=self._groups,
            hidden=self._spade_hidden,
        )

    def _attention(self, channels: int) -> SpatialTransformer:
        head_channels, heads = self._heads
        heads = heads if heads != -1 else channels // head_channels
        if heads == 0 or channels % heads or (head_channels != -1 and channels % head_channels):
            raise ValueError(
                f"{channels} channels do not divide into heads of {head_channels} channels"
                if head_channels != -1
                else f"{channels} channels do not divide into {heads} heads"
            )
        context_dim, depth = self._transformer
        token = context_dim // self.style_grid**2
        return SpatialTransformer(channels, token, heads, depth, self.use_mask_attn, self._groups)

    def _build_encoder(
        self,
        in_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        resblock_updown: bool,
    ) -> tuple[int, list[int]]:
        """Build `input_blocks`; return the channels at its end and those of every skip connection."""
        channels = self.model_channels
        self.input_blocks = nn.ModuleList([Stage(conv3x3(in_channels, channels))])
        skips = [channels]
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                out = mult * self.model_channels
                layers: list[nn.Module] = [self._plain(channels, out)]
                channels = out
                if 2**level in attention_resolutions:
                    layers.append(self._attention(channels))
                self.input_blocks.append(Stage(*layers))
                skips.append(channels)
            if level < len(channel_mult) - 1:
                halve = self._plain(channels, channels, "down") if resblock_updown else Downsample(channels)
                self.input_blocks.append(Stage(halve))
                skips.append(channels)
        return channels, skips

    def _build_decoder(
        self,
        channels: int,
        skips: list[int],
        channel_mult: Sequence[int],
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        resblock_updown: bool,
    ) -> int:
        """Build `output_blocks`; return the channels at its end."""
        skips = list(skips)
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for block in range(num_res_blocks + 1):
                out = mult * self.model_channels
                layers: list[nn.Module] = [self._spade(channels + skips.pop(), out)]
                channels = out
                if 2**level in attention_resolutions:
                    layers.append(self._attention(channels))
                if level > 0 and block == num_res_blocks:
                    layers.append(
                        self._spade(channels, channels, "up") if resblock_updown else Upsample(channels)
                    )
                self.output_blocks.append(Stage(*layers))
        return channels

    def condition(self, style: Tensor, mask: Tensor, size: tuple[int, int]) -> Conditioning:
        """Compute everything that stays the same at every step.

        Args:
            style: (B, R, D).
            mask: (B, R, H, W), one-hot; zeros where nothing is known.
            size: (h, w) of the latents, multiples of `factor`.

        Raises:
            ValueError: shapes that do not fit each other or the network.
        """
        self._check(style, mask, size)
        regions = RegionMask(mask.to(style.dtype), self.mask_shares, self.style_grid)
        encoder, decoder = [], []
        for stage in self.input_blocks:
            encoder.append(stage.condition(style, regions, size))  # type: ignore[operator]
            if isinstance(stage[0], Downsample) or getattr(stage[0], "how", "") == "down":  # type: ignore[index]
                size = (size[0] // 2, size[1] // 2)
        middle = self.middle_block.condition(style, regions, size)
        for stage in self.output_blocks:
            decoder.append(stage.condition(style, regions, size))  # type: ignore[operator]
            if isinstance(stage[-1], Upsample) or getattr(stage[-1], "how", "") == "up":  # type: ignore[index]
                size = (2 * size[0], 2 * size[1])
        return Conditioning(encoder, middle, decoder)

    def _check(self, style: Tensor, mask: Tensor, size: tuple[int, int]) -> None:
        R, D = self.num_regions, self._transformer[0]
        if style.ndim != 3 or style.shape[1:] != (R, D):
            raise ValueError(f"style has shape {tuple(style.shape)}; wanted (batch, {R} regions, {D})")
        if mask.ndim != 4 or mask.shape[:2] != (style.shape[0], R):
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; wanted ({style.shape[0]}, {R} regions, height, width)"
            )
        if size[0] % self.factor or size[1] % self.factor:
            raise ValueError(
                f"latents of {size[0]}x{size[1]} cannot be halved {self.factor.bit_length() - 1} times; "
                f"choose an image size so that height and width of the latent are multiples of {self.factor}"
            )

    def denoise(
        self, x: Tensor, t: Tensor, conditioning: Conditioning, attention_logits: list[Tensor] | None = None
    ) -> Tensor:
        """Predict the noise.

        Args:
            x: noisy latents (B, 3, h, w).
            t: timesteps (B,), integers.
            conditioning: from `condition`, for the same batch and size.
            attention_logits: a list that receives the logits (B, R, h, w) of every style attention, averaged
                over heads; only where they exist, which is without mask attention.

        Returns:
            eps (B, 3, h, w).
        """
        emb = self.time_embed(embed_timesteps(t, self.model_channels).to(x.dtype))  # B T
        skips = []
        for stage, part in zip(self.input_blocks, conditioning.encoder, strict=True):
            x = self._run(stage, x, emb, part, attention_logits)
            skips.append(x)
        x = self._run(self.middle_block, x, emb, conditioning.middle, attention_logits)
        for stage, part in zip(self.output_blocks, conditioning.decoder, strict=True):
            x = self._run(stage, torch.cat([x, skips.pop()], 1), emb, part, attention_logits)
        return self.out(x)

    def _run(
        self,
        stage: nn.Module,
        x: Tensor,
        emb: Tensor,
        part: list[LayerConditioning],
        logits: list[Tensor] | None,
    ) -> Tensor:
        # Logits leave the stage by a side door that recomputation would enter twice.
        if self.use_checkpoint and torch.is_grad_enabled() and logits is None:
            return checkpoint(stage, x, emb, part, use_reentrant=False)
        return stage(x, emb, part, logits)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, y: Tensor) -> Tensor:
        """Predict the noise in x (B, 3, h, w) from t (B,), style codes (B, R, D) and the mask (B, R, H, W)."""
        return self.denoise(x, t, self.condition(context, y, (x.shape[-2], x.shape[-1])))


def _check_settings(use_spatial_transformer: bool, num_head_channels: int, num_heads: int) -> None:
    if not use_spatial_transformer:
        raise ValueError("use_spatial_transformer: false has no place for the styles; set it to true")
    if (num_head_channels == -1) == (num_heads == -1):
        raise ValueError("give one of num_head_channels and num_heads: the other follows from the channels")


def _check_grid(style_grid: int, use_mask_attn: bool, context_dim: int) -> None:
    if style_grid < 1 or (style_grid > 1 and not use_mask_attn):
        raise ValueError(f"style_grid is {style_grid}; wanted 1, or with use_mask_attn more")
    if context_dim % style_grid**2:
        raise ValueError(
            f"context_dim {context_dim} does not divide into {style_grid}x{style_grid} tokens; give a multiple of "
            f"{style_grid**2}"
        )
