"""The denoising UNet: styles enter by mask attention, the mask by SPADE in middle block and decoder."""

import warnings
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
    """Step-independent conditioning of the UNet, which depends on style and mask only: per stage, per layer."""

    encoder: list[list[LayerConditioning]]
    middle: list[LayerConditioning]
    decoder: list[list[LayerConditioning]]


class UNet(nn.Module):
    """Predicts the target of the model's parameterization (eps or v) from a noisy latent, timestep, styles and mask.

    Args (the YAML's keys):
        image_size: side of the latent in training, the default for sampling; the network takes any size.
        in_channels, out_channels: channels of the latent.
        model_channels: base width; `channel_mult` multiplies it at each level.
        num_res_blocks: residual blocks per level (the decoder has one more).
        attention_resolutions: downsampling factors (1, 2, 4, ...) of the levels with transformers; the middle
            block always has one.
        context_dim: D, the size of one region's style code.
        num_classes: R, the number of regions.
        use_mask_attn: restrict the attention of each pixel to the codes of its regions.
        num_head_channels, num_heads: channels per head, or number of heads; give exactly one.
        transformer_depth: blocks per transformer.
        dropout: dropout probability in residual blocks.
        use_scale_shift_norm: scale and shift features by the time embedding instead of adding it.
        resblock_updown: resample with residual blocks instead of convolutions.
        use_checkpoint: activation checkpointing (`ldm.modules.recomputation`): "cheap" recomputes norms and
            activation functions, true recomputes everything and takes a third more time.
        norm_groups: groups of every norm. A group of one channel would remove the channel's mean, and with it
            the timestep: narrow networks need fewer than the published 32.
        spade_hidden: hidden channels of the SPADE norms. The published 128 would dominate the cost of a
            narrow network.
        area_masks: downsample the mask by area averaging, which preserves sub-pixel edges in small latents,
            instead of nearest neighbor (published).
        style_grid: n; a region's code is n x n tokens of size context_dim / n^2, one per cell of a grid in
            the region frame (`ldm.modules.region_mask.Frames`), so that style may vary within a region; 1 in
            the published model.
        region_frames: {region: region frame of its grid}, where the frame is another region or "image" for
            the whole image; by default a region's own.
        style_input: add a convolution of the style grid to the features of the first convolution, so that the
            network sees each latent pixel's style at its own resolution; needs a style_grid.
        use_spatial_transformer: key of published YAMLs; only true is supported.

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
        area_masks: bool = False,
        style_grid: int = 1,
        region_frames: Mapping[int, int | str] | None = None,
        style_input: bool = False,
        use_spatial_transformer: bool = True,
    ) -> None:
        super().__init__()
        if not use_spatial_transformer:
            raise ValueError("use_spatial_transformer must be true: styles enter through the transformers")
        self.image_size, self.in_channels, self.model_channels = image_size, in_channels, model_channels
        self.num_regions, self.context_dim = num_classes, context_dim
        _check_grid(style_grid, use_mask_attn, context_dim)
        if style_input and style_grid == 1:
            raise ValueError("style_input: true needs a style_grid of 2 or more, got 1")
        self.use_mask_attn, self.area_masks, self.style_grid = use_mask_attn, area_masks, style_grid
        self.region_frames = check_frames(region_frames, num_classes, style_grid)
        self.use_checkpoint = check_recompute(use_checkpoint)
        self.factor = 2 ** (len(channel_mult) - 1)  # sides of latents must be divisible by it
        if image_size % self.factor:
            raise ValueError(
                f"image_size must be a multiple of {self.factor}, because the levels of channel_mult "
                f"downsample it {len(channel_mult) - 1} times, got {image_size}"
            )
        T = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, T), nn.SiLU(), nn.Linear(T, T))
        # Present in published checkpoints but unused, therefore frozen.
        self.label_emb = nn.Embedding(num_classes, T).requires_grad_(False)
        widths = [mult * model_channels for mult in channel_mult]
        factors = [2**level for level in range(len(widths))]
        if idle := sorted({*attention_resolutions}.difference(factors)):
            warnings.warn(
                f"attention_resolutions has {', '.join(map(str, idle))}, but the levels have the downsampling factors "
                f"{', '.join(map(str, factors))}; other numbers have no effect",
                stacklevel=2,
            )
        attended = [factor in attention_resolutions for factor in factors]
        residuals = Residuals(T, num_classes, dropout, use_scale_shift_norm, norm_groups, spade_hidden)
        token_dim, head_options = context_dim // style_grid**2, (num_head_channels, num_heads)
        transformers = Transformers(token_dim, transformer_depth, *head_options, use_mask_attn, norm_groups)
        layout = Layout(
            widths, attended, num_res_blocks, resblock_updown, residuals, transformers, style_input
        )
        self.input_blocks, skips = layout.encoder(in_channels, model_channels)
        self.middle_block = layout.middle()
        self.output_blocks = layout.decoder(skips)
        self.out = nn.Sequential(
            GroupNorm(norm_groups, widths[0]), nn.SiLU(), zero_init(conv3x3(widths[0], out_channels))
        )

    def condition(
        self, style: Tensor, mask: Tensor, size: tuple[int, int], exclusive: bool | None = None
    ) -> Conditioning:
        """Compute the step-independent conditioning.

        Args:
            style: (B, R, D).
            mask: (B, R, H, W), one-hot; all zeros at unlabeled pixels.
            size: (h, w) of the latents, divisible by `factor`.
            exclusive: whether each pixel has at most one region; None checks the mask, which synchronizes
                with the GPU.

        Raises:
            ValueError: shapes that are inconsistent with each other or the network.
        """
        self._check(style, mask, size)
        regions = RegionMask(
            mask.to(style.dtype), self.area_masks, self.style_grid, self.region_frames, exclusive
        )
        encoder, size = self._condition(self.input_blocks, style, regions, size)
        middle = self.middle_block.condition(style, regions, size)
        decoder, _ = self._condition(self.output_blocks, style, regions, size)
        return Conditioning(encoder, middle, decoder)

    def _condition(
        self, stages: nn.ModuleList, style: Tensor, regions: RegionMask, size: tuple[int, int]
    ) -> tuple[list[list[LayerConditioning]], tuple[int, int]]:
        """Return the conditioning of consecutive stages and the size after the last one."""
        parts = []
        for stage in stages:
            assert isinstance(stage, Stage)
            parts.append(stage.condition(style, regions, size))
            size = stage.size_after(size)
        return parts, size

    def freeze_unused(self) -> None:
        """Freeze parameters that get no gradient; data-parallel training would wait for their gradients."""
        for module in self.modules():
            if isinstance(module, TransformerBlock):
                module.freeze_unused()

    def _check(self, style: Tensor, mask: Tensor, size: tuple[int, int]) -> None:
        R, D = self.num_regions, self.context_dim
        if style.ndim != 3 or style.shape[1:] != (R, D):
            raise ValueError(f"style must have shape (batch, {R} regions, {D}), got {tuple(style.shape)}")
        if mask.ndim != 4 or mask.shape[:2] != (style.shape[0], R):
            raise ValueError(
                f"mask must have shape ({style.shape[0]}, {R} regions, height, width), got {tuple(mask.shape)}"
            )
        if size[0] % self.factor or size[1] % self.factor:
            raise ValueError(
                f"height and width of latents must be multiples of {self.factor}, got {size[0]}x{size[1]}; "
                "change the image size"
            )

    def denoise(
        self, x: Tensor, t: Tensor, conditioning: Conditioning, attention_logits: list[Tensor] | None = None
    ) -> Tensor:
        """Predict eps or v, as the model was trained; `LatentNetworks.apply_model` converts v to eps.

        Args:
            x: noisy latents (B, in_channels, h, w).
            t: timesteps (B,), integers.
            conditioning: output of `condition` for the same batch and size.
            attention_logits: a list to append the head-averaged logits (B, R, h, w) of every style attention
                to; stays empty with mask attention.

        Returns:
            eps or v, (B, out_channels, h, w).
        """
        emb = self.time_embed(embed_timesteps(t, self.model_channels).to(x.dtype))  # (B, T)
        skips = []
        for stage, part in zip(self.input_blocks, conditioning.encoder, strict=True):
            x = self._run(stage, x, emb, part, attention_logits)  # (B, C', h', w')
            skips.append(x)
        x = self._run(self.middle_block, x, emb, conditioning.middle, attention_logits)  # (B, C, h/f, w/f)
        for stage, part in zip(self.output_blocks, conditioning.decoder, strict=True):
            x = torch.cat([x, skips.pop()], 1)  # (B, C + C_skip, h', w')
            x = self._run(stage, x, emb, part, attention_logits)  # (B, C', h'', w'')
        return self.out(x)  # (B, out_channels, h, w)

    def _run(
        self,
        stage: nn.Module,
        x: Tensor,
        emb: Tensor,
        part: list[LayerConditioning],
        logits: list[Tensor] | None,
    ) -> Tensor:
        # Recomputation would append the attention logits twice.
        mode = self.use_checkpoint if logits is None else False
        return recomputing(stage, x, emb, part, logits, mode=mode)  # (B, C', h', w')

    def forward(self, x: Tensor, t: Tensor, context: Tensor, y: Tensor) -> Tensor:
        """Call `denoise` for x (B, in_channels, h, w), t (B,), style codes (B, R, D) and the mask (B, R, H, W)."""
        return self.denoise(x, t, self.condition(context, y, (x.shape[-2], x.shape[-1])))


def _check_grid(style_grid: int, use_mask_attn: bool, context_dim: int) -> None:
    if style_grid < 1 or (style_grid > 1 and not use_mask_attn):
        raise ValueError(f"style_grid must be 1, or more with use_mask_attn: true, got {style_grid}")
    if context_dim % style_grid**2:
        raise ValueError(
            f"context_dim must be a multiple of style_grid^2 = {style_grid**2}, got {context_dim}"
        )
