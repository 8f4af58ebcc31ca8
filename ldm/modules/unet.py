"""The noise predictor: style enters its encoder by mask attention, shape its middle and decoder by SPADE."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ldm.modules.attention import TransformerBlock
from ldm.modules.layers import GroupNorm, conv3x3, embed_timesteps, zero_init
from ldm.modules.recomputation import Recompute, check_recompute, recomputing
from ldm.modules.region_mask import RegionMask, check_frames
from ldm.modules.unet_stages import LayerConditioning, Layout, Residuals, Stage, Transformers


class Conditioning(NamedTuple):
    """Everything of one UNet pass that depends on style and mask alone: per stage, per layer."""

    encoder: list[list[LayerConditioning]]
    middle: list[LayerConditioning]
    decoder: list[list[LayerConditioning]]


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
        use_checkpoint: what the backward pass recomputes instead of having it kept (`ldm.modules.recomputation`):
            "cheap" norms and activations, true everything, for a third more time.
        norm_groups: groups of every norm. A group of one channel would forget that channel's mean, and with it
            the timestep: narrow networks want fewer than the published 32.
        spade_hidden: channels between the mask and a SPADE norm's scale and shift. The published 128 cost a
            narrow network more than all else in it.
        mask_shares: reduce the mask to the share of a pixel that each region covers, not to the nearest label:
            small latents then know where edges and lips are, more finely than their pixels.
        style_grid: n; a region's code is n x n tokens of context_dim / n^2 numbers, for the places of a grid within the
            region (`ldm.modules.region_mask.Frames`), so that style may differ from place to place. 1 as published.
        style_frames: for some regions, by number, what their grid lies about instead: another region, by number, or
            "picture" for all of that.
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
        use_checkpoint: Recompute = False,
        norm_groups: int = 32,
        spade_hidden: int = 128,
        mask_shares: bool = False,
        style_grid: int = 1,
        style_frames: Mapping[int, int | str] | None = None,
        use_spatial_transformer: bool = True,
    ) -> None:
        super().__init__()
        if not use_spatial_transformer:
            raise ValueError("use_spatial_transformer: false has no place for the styles; set it to true")
        self.image_size, self.model_channels = image_size, model_channels
        self.num_regions, self.context_dim = num_classes, context_dim
        _check_grid(style_grid, use_mask_attn, context_dim)
        self.use_mask_attn, self.mask_shares, self.style_grid = use_mask_attn, mask_shares, style_grid
        self.style_frames = check_frames(style_frames, num_classes, style_grid)
        self.use_checkpoint = check_recompute(use_checkpoint)
        self.factor = 2 ** (len(channel_mult) - 1)  # latents must be a multiple of it
        T = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, T), nn.SiLU(), nn.Linear(T, T))
        # Stored in published checkpoints, never used, and therefore never trained.
        self.label_emb = nn.Embedding(num_classes, T).requires_grad_(False)
        widths = [mult * model_channels for mult in channel_mult]
        attended = [2**level in attention_resolutions for level in range(len(widths))]
        residuals = Residuals(T, num_classes, dropout, use_scale_shift_norm, norm_groups, spade_hidden)
        token, heads = context_dim // style_grid**2, (num_head_channels, num_heads)
        transformers = Transformers(token, transformer_depth, *heads, use_mask_attn, norm_groups)
        layout = Layout(widths, attended, num_res_blocks, resblock_updown, residuals, transformers)
        self.input_blocks, skips = layout.encoder(in_channels, model_channels)
        self.middle_block = layout.middle()
        self.output_blocks = layout.decoder(skips)
        self.out = nn.Sequential(
            GroupNorm(norm_groups, widths[0]), nn.SiLU(), zero_init(conv3x3(widths[0], out_channels))
        )

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
        regions = RegionMask(mask.to(style.dtype), self.mask_shares, self.style_grid, self.style_frames)
        encoder, size = self._condition(self.input_blocks, style, regions, size)
        middle = self.middle_block.condition(style, regions, size)
        decoder, _ = self._condition(self.output_blocks, style, regions, size)
        return Conditioning(encoder, middle, decoder)

    def _condition(
        self, stages: nn.ModuleList, style: Tensor, regions: RegionMask, size: tuple[int, int]
    ) -> tuple[list[list[LayerConditioning]], tuple[int, int]]:
        """Return the conditioning of stages one behind the other, and the size at their end."""
        parts = []
        for stage in stages:
            assert isinstance(stage, Stage)
            parts.append(stage.condition(style, regions, size))
            size = stage.size_after(size)
        return parts, size

    def freeze_idle(self) -> None:
        """Freeze what a label map leaves without a gradient, for which data-parallel training would wait."""
        for module in self.modules():
            if isinstance(module, TransformerBlock):
                module.freeze_idle()

    def _check(self, style: Tensor, mask: Tensor, size: tuple[int, int]) -> None:
        R, D = self.num_regions, self.context_dim
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
        what = self.use_checkpoint if logits is None else False
        return recomputing(stage, x, emb, part, logits, what=what)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, y: Tensor) -> Tensor:
        """Predict the noise in x (B, 3, h, w) from t (B,), style codes (B, R, D) and the mask (B, R, H, W)."""
        return self.denoise(x, t, self.condition(context, y, (x.shape[-2], x.shape[-1])))


def _check_grid(style_grid: int, use_mask_attn: bool, context_dim: int) -> None:
    if style_grid < 1 or (style_grid > 1 and not use_mask_attn):
        raise ValueError(f"style_grid is {style_grid}; wanted 1, or with use_mask_attn more")
    if context_dim % style_grid**2:
        raise ValueError(
            f"context_dim {context_dim} does not divide into {style_grid}x{style_grid} tokens; give a multiple of "
            f"{style_grid**2}"
        )
