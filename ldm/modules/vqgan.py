"""Encoder, decoder and codebook of the first stage (Esser et al., arXiv 2012.09841; Rombach et al., 2112.10752).

Attribute names match the published checkpoints.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.modules.distributed import agree_on_first, least_of_all, sum_of_all, whole_batch
from ldm.modules.layers import conv3x3, group_norm, repeat_pixels

Resample = Literal["none", "down", "up"]
UNUSED = 2**30  # initial idle count of an entry that was never chosen


class ResnetBlock(nn.Module):
    """Norm, swish, conv, twice, with a skip connection."""

    def __init__(self, channels: int, out_channels: int, dropout: float, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(groups, channels, eps=1e-6)
        self.conv1 = conv3x3(channels, out_channels)
        self.norm2 = group_norm(groups, out_channels, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels)
        if channels != out_channels:
            self.nin_shortcut = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C', h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))  # (B, C', h, w)
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))  # (B, C', h, w)
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttentionBlock(nn.Module):
    """Single-head self-attention among pixels, with a skip connection."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(groups, channels, eps=1e-6)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        h = self.norm(x)
        # Contiguous, because PyTorch's fused attention on CPUs needs channels with stride 1.
        q, k, v = (rearrange(to(h), "b c h w -> b 1 (h w) c").contiguous() for to in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        h = rearrange(h, "b 1 (h w) c -> b c h w", h=x.shape[-2])
        return x + self.proj_out(h)


class Downsample(nn.Module):
    """Stride-2 convolution after padding right and bottom by one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h/2, w/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbor upsampling, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2h, 2w)."""
        return self.conv(repeat_pixels(x))


class Middle(nn.Module):
    """Blocks at the lowest resolution: ResNet, attention, ResNet."""

    def __init__(self, channels: int, dropout: float, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, dropout, groups)
        self.attn_1 = AttentionBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, dropout, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """ResNet blocks of one resolution, each followed by attention if `attention`, and a resampling layer."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        blocks: int,
        attention: bool,
        dropout: float,
        groups: int,
        resample: Resample,
    ) -> None:
        super().__init__()
        sizes = [channels] + [out_channels] * (blocks - 1)
        self.block = nn.ModuleList(ResnetBlock(size, out_channels, dropout, groups) for size in sizes)
        self.attn = nn.ModuleList(
            AttentionBlock(out_channels, groups) for _ in range(blocks if attention else 0)
        )
        if resample == "down":
            self.downsample = Downsample(out_channels)
        elif resample == "up":
            self.upsample = Upsample(out_channels)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C', h', w')."""
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        if self.resample == "down":
            return self.downsample(x)
        return self.upsample(x) if self.resample == "up" else x


class Encoder(nn.Module):
    """Image (B, in_channels, H, W) -> features (B, z_channels, H/f, W/f), f = 2^(levels - 1).

    Args (`ddconfig` of the YAML):
        ch, ch_mult: base channels, and their multiplier at each level.
        num_res_blocks: ResNet blocks per level.
        attn_resolutions: sides of the feature maps with attention, for an image of `resolution`.
        double_z: double the output channels, for KL autoencoders (mean and variance); false for VQ.
        out_ch: output channels of the decoder.
        norm_groups: groups of every norm, 0 for no norms. A norm removes the mean of its channels, and in a
            narrow network the image's colors with it: `ch: 16` needs 0, see `ldm.models.autoencoder_init`.
    """

    def __init__(
        self,
        *,
        ch: int,
        out_ch: int,
        in_channels: int,
        resolution: int,
        z_channels: int,
        num_res_blocks: int,
        ch_mult: Sequence[int] = (1, 2, 4, 8),
        attn_resolutions: Sequence[int] = (),
        dropout: float = 0.0,
        double_z: bool = True,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        self.conv_in = conv3x3(in_channels, ch)
        self.down = nn.ModuleList()
        channels = ch
        for i, mult in enumerate(ch_mult):
            attention = resolution // 2**i in attn_resolutions
            resampling: Resample = "down" if i < len(ch_mult) - 1 else "none"
            self.down.append(
                Level(channels, ch * mult, num_res_blocks, attention, dropout, norm_groups, resampling)
            )
            channels = ch * mult
        self.mid = Middle(channels, dropout, norm_groups)
        self.norm_out = group_norm(norm_groups, channels, eps=1e-6)
        self.conv_out = conv3x3(channels, 2 * z_channels if double_z else z_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, z_channels, H/f, W/f)."""
        x = self.conv_in(image)  # (B, ch, H, W)
        for level in self.down:
            x = level(x)  # (B, C, h, w)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))  # (B, z_channels, H/f, W/f)


class Decoder(nn.Module):
    """Features (B, z_channels, h, w) -> image (B, out_ch, f*h, f*w). Same arguments as the encoder."""

    def __init__(
        self,
        *,
        ch: int,
        out_ch: int,
        in_channels: int,
        resolution: int,
        z_channels: int,
        num_res_blocks: int,
        ch_mult: Sequence[int] = (1, 2, 4, 8),
        attn_resolutions: Sequence[int] = (),
        dropout: float = 0.0,
        double_z: bool = True,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        channels = ch * ch_mult[-1]
        self.conv_in = conv3x3(z_channels, channels)
        self.mid = Middle(channels, dropout, norm_groups)
        levels = []  # built from the coarsest, stored from the finest
        for i, mult in reversed(list(enumerate(ch_mult))):
            attention = resolution // 2**i in attn_resolutions
            resampling: Resample = "up" if i > 0 else "none"
            levels.append(
                Level(channels, ch * mult, num_res_blocks + 1, attention, dropout, norm_groups, resampling)
            )
            channels = ch * mult
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = group_norm(norm_groups, channels, eps=1e-6)
        self.conv_out = conv3x3(channels, out_ch)

    @property
    def last_layer(self) -> Tensor:
        """Weight used to balance the adversarial and the reconstruction loss."""
        return self.conv_out.weight

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, z_channels, h, w) to (B, out_ch, f*h, f*w)."""
        x = self.mid(self.conv_in(z))  # (B, C, h, w)
        for level in reversed(list(self.up)):
            x = level(x)  # (B, C', 2h, 2w), except at the last level
        return self.conv_out(F.silu(self.norm_out(x)))  # (B, out_ch, f*h, f*w)


class Codebook(nn.Module):
    """Vector quantization with n_embed entries of size embed_dim (VQ-VAE, arXiv 1711.00937)."""

    CHUNK = 4096  # pixels per search step, bounds the distance matrix to 4096 x n_embed

    def __init__(self, n_embed: int, embed_dim: int, commitment: float = 0.25) -> None:
        """Build a codebook; `commitment` is the paper's beta."""
        super().__init__()
        self.commitment = commitment
        self.embedding = nn.Embedding(n_embed, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_embed, 1 / n_embed)
        # Training batches since each entry was last chosen.
        self.idle: Tensor
        self.register_buffer("idle", torch.full((n_embed,), UNUSED), persistent=False)

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Return the index of the nearest entry (L2) to each pixel of z (B, D, h, w): (B, h, w), int64."""
        entries = self.embedding.weight  # (K, D)
        flat = rearrange(z, "b d h w -> (b h w) d").to(entries.dtype)
        # |z - e|^2 without |z|^2, which is the same for all entries.
        norms, twice = entries.square().sum(1), -2 * entries.T
        # An exported program takes any batch size, so the number of parts cannot depend on it.
        parts = [flat] if torch.compiler.is_exporting() else flat.split(self.CHUNK)
        with torch.autocast(z.device.type, enabled=False):  # half precision would select other entries
            indices = [torch.addmm(norms, part, twice).argmin(1) for part in parts]
        return rearrange(torch.cat(indices), "(b h w) -> b h w", h=z.shape[2], w=z.shape[3])

    @torch.no_grad()
    def reset_unused(self, z: Tensor, after: int) -> Tensor:
        """Reset entries unused for `after` training batches to random pixels of z (B, D, h, w).

        Before the first batch, this initializes the whole codebook from latents. With several processes,
        entries are sampled from the global batch and broadcast from the first process. Shapes do not depend
        on the number of these entries, which the host would wait for.

        Returns:
            number of entries reset, a scalar on the device of the codebook.
        """
        entries = self.embedding.weight  # (K, D)
        dead = self.idle >= after  # (K,)
        pixels = rearrange(whole_batch(z), "b d h w -> (b h w) d").to(entries.dtype)
        # Sample without replacement while possible: equal entries would stay equal.
        order = torch.randperm(len(pixels), device=z.device)
        rank = (dead.cumsum(0) - 1) % len(pixels)  # of an entry among those to reset
        entries.copy_(torch.where(dead[:, None], pixels[order[rank]], entries))
        self.idle.masked_fill_(dead, 0)
        agree_on_first(entries)
        return dead.sum()

    def use(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fraction of entries used by indices (B, h, w) of all processes, and their perplexity.

        The perplexity, exp of the entropy of the usage, is the effective number of entries in use.
        """
        flat = indices.flatten()
        counts = flat.new_zeros(self.embedding.num_embeddings)  # bincount would wait for a GPU
        counts = counts.scatter_add_(0, flat, torch.ones_like(flat)).float()
        sum_of_all(counts)
        return (counts > 0).float().mean(), torch.special.entr(counts / counts.sum()).sum().exp()

    def look_up(self, indices: Tensor) -> Tensor:
        """Return the entries (B, D, h, w) of indices (B, h, w)."""
        return rearrange(self.embedding(indices), "b h w d -> b d h w").contiguous()

    def quantize(self, z: Tensor) -> Tensor:
        """Return the nearest entry to each pixel, (B, D, h, w)."""
        return self.look_up(self.nearest(z))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize z (B, D, h, w), passing the gradient straight through to z.

        Returns:
            quantized (B, D, h, w); the codebook loss, equation 3 of the paper, a scalar; indices (B, h, w).
        """
        indices = self.nearest(z)  # (B, h, w)
        if self.training:
            self.idle += 1
            self.idle[indices.flatten()] = 0
            least_of_all(self.idle)  # an entry used by any process counts as used
        quantized = self.look_up(indices)  # (B, D, h, w)
        loss = F.mse_loss(quantized, z.detach()) + self.commitment * F.mse_loss(z, quantized.detach())
        return z + (quantized - z).detach(), loss, indices
