"""Transformer blocks on pixels: self-attention, then cross-attention to the style codes of the regions."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.modules.layers import GroupNorm, zero_init
from ldm.modules.region_mask import RegionMask


class StyleLookup(NamedTuple):
    """Output of cross-attention, computed in advance: depends on style and mask, not on the features."""

    values: Tensor  # (B, h*w, C), after to_out


class StyleTokens(NamedTuple):
    """Cross-attention that depends on the features: keys and values of the R style codes."""

    keys: Tensor  # (B, heads, R, d), or R*n*n tokens with a style grid; with mask attention one more
    values: Tensor  # (B, heads, R, d)
    bias: Tensor | None  # (B, 1, h*w, R+1), added to the logits; None without mask attention


StyleConditioning = StyleLookup | StyleTokens


class SelfAttention(nn.Module):
    """Multi-head self-attention among pixels. Attribute names match the published checkpoints."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        q, k, v = (
            split_heads(to(x), self.heads) for to in (self.to_q, self.to_k, self.to_v)
        )  # (B, heads, N, d)
        return self.to_out(merge_heads(F.scaled_dot_product_attention(q, k, v)))


class StyleAttention(nn.Module):
    """Multi-head attention from pixels to the style codes of the regions, restricted by the mask if `masked`.

    A region's code is one token of size `context_dim`, or one token per cell of a style grid. Attribute names
    match the published checkpoints.
    """

    def __init__(self, channels: int, context_dim: int, heads: int, masked: bool) -> None:
        super().__init__()
        self.heads = heads
        self.masked = masked
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def condition(self, style: Tensor, mask: RegionMask, size: tuple[int, int]) -> StyleConditioning:
        """Compute the step-independent conditioning from style (B, R, D) and the mask, for h x w pixels.

        With an exclusive mask, each pixel attends to a single code, so the output is
        to_out(to_v(style))[region]; unlabeled pixels attend to the mean of all codes.
        Where regions or grid cells share a pixel, the output is their weighted mean.
        """
        style = style.unflatten(2, (-1, self.to_v.in_features)).flatten(1, 2)  # (B, R*n*n, d)
        if self.masked and mask.exclusive and mask.grid > 1:
            # Mixing before the linear layers is equivalent and cheaper.
            return StyleLookup(self.to_out(self.to_v(mask.interpolate_codes(style, size))))
        if self.masked:
            style = torch.cat([style, style.mean(1, keepdim=True)], 1)  # (B, R+1, d)
        if self.masked and mask.exclusive:
            values = self.to_out(self.to_v(style))  # (B, R+1, C)
            return StyleLookup(
                mask.area_fractions(size) @ values if mask.area else _look_up(values, mask.labels(size))
            )
        keys, values = split_heads(self.to_k(style), self.heads), split_heads(self.to_v(style), self.heads)
        return StyleTokens(keys, values, mask.attention_bias(size, style.dtype) if self.masked else None)

    def forward(self, x: Tensor, tokens: StyleTokens, logits: list[Tensor] | None = None) -> Tensor:
        """Attend from x (B, N, C) to the codes; append the logits (B, R, N), averaged over heads, to `logits`.

        Mask attention appends none.
        """
        q = split_heads(self.to_q(x), self.heads)  # (B, heads, N, d)
        if logits is not None and not self.masked:
            scaled = torch.einsum("bhnd,bhrd->brn", q, tokens.keys) * q.shape[-1] ** -0.5
            logits.append(scaled / self.heads)
        return self.to_out(
            merge_heads(F.scaled_dot_product_attention(q, tokens.keys, tokens.values, tokens.bias))
        )


def _look_up(values: Tensor, labels: Tensor) -> Tensor:
    """Index values (B, R+1, C) by labels (B, N); return (B, N, C)."""
    B, rows, C = values.shape
    first_row = torch.arange(B, device=labels.device)[:, None] * rows
    return values.flatten(0, 1).index_select(0, (labels + first_row).flatten()).view(*labels.shape, C)


class GEGLU(nn.Module):
    """Gated GELU unit (Shazeer, arXiv 2002.05202)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., channels) to (..., hidden)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU and an output projection. `net.1` takes the place of the zero dropout in published checkpoints."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = expansion * channels
        self.net = nn.Sequential(GEGLU(channels, hidden), nn.Identity(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., channels) to (..., channels)."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, style attention and a feed-forward layer, each added to its input."""

    def __init__(self, channels: int, context_dim: int, heads: int, masked: bool) -> None:
        super().__init__()
        self.attn1 = SelfAttention(channels, heads)
        self.attn2 = StyleAttention(channels, context_dim, heads, masked)
        self.ff = FeedForward(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, style: StyleConditioning, logits: list[Tensor] | None = None) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.attn1(self.norm1(x))
        x = x + (style.values if isinstance(style, StyleLookup) else self.attn2(self.norm2(x), style, logits))
        return x + self.ff(self.norm3(x))

    def freeze_unused(self) -> None:
        """Freeze queries and keys of mask attention, which an exclusive mask makes unnecessary."""
        if self.attn2.masked:
            for unused in (self.attn2.to_q, self.attn2.to_k, self.norm2):
                unused.requires_grad_(False)


class SpatialTransformer(nn.Module):
    """Transformer blocks on the pixels of a feature map, with a residual connection; initially the identity."""

    def __init__(
        self, channels: int, context_dim: int, heads: int, depth: int, masked: bool, groups: int = 32
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, context_dim, heads, masked) for _ in range(depth)
        )
        self.proj_out = zero_init(nn.Conv2d(channels, channels, 1))

    def condition(self, style: Tensor, mask: RegionMask, size: tuple[int, int]) -> list[StyleConditioning]:
        """Compute the conditioning of each block for a feature map of `size`."""
        return [block.attn2.condition(style, mask, size) for block in self.transformer_blocks]  # type: ignore[union-attr, operator]

    def forward(
        self, x: Tensor, style: list[StyleConditioning], logits: list[Tensor] | None = None
    ) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w); append each block's logits (B, R, h, w) to `logits`."""
        h = x.shape[-2]
        tokens = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        flat: list[Tensor] | None = None if logits is None else []
        for block, block_style in zip(self.transformer_blocks, style, strict=True):
            tokens = block(tokens, block_style, flat)
        if logits is not None and flat is not None:
            logits += [rearrange(each, "b r (h w) -> b r h w", h=h) for each in flat]
        return x + self.proj_out(rearrange(tokens, "b (h w) c -> b c h w", h=h))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Map (B, N, heads*d) to (B, heads, N, d)."""
    return rearrange(x, "b n (heads d) -> b heads n d", heads=heads)


def merge_heads(x: Tensor) -> Tensor:
    """Map (B, heads, N, d) to (B, N, heads*d)."""
    return rearrange(x, "b heads n d -> b n (heads d)")
