"""The published style encoder Es: image and mask to one style code per region."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.modules.layers import GroupNorm


class StyleEncoder(nn.Module):
    """Multi-scale encoder with separate channels for each region.

    Args (the YAML's keys):
        num_downsample: N, number of stride-2 convolutions.
        num_upsample: U in [1, N], number of upsampling layers; each yields one part of the code.
        num_feat: f, channels per region at full resolution.
        num_mask_channels: R, the number of regions.
        output_dim: d, size of one part; the code of a region has size D = U * d.
        align_regions: keep the channels of each region together when concatenating encoder and decoder
            features. Published weights need false: plain concatenation, which mixes channels of different
            regions in the grouped convolutions.
    """

    def __init__(
        self,
        num_downsample: int,
        num_upsample: int,
        num_feat: int,
        num_mask_channels: int,
        output_dim: int,
        align_regions: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= num_upsample <= num_downsample:
            raise ValueError(
                f"num_upsample must be in [1, num_downsample = {num_downsample}], got {num_upsample}"
            )
        self.num_regions = num_mask_channels
        self.style_dim = num_upsample * output_dim
        self.align_regions = align_regions
        self.factor = 2**num_downsample
        # Attribute names match the published checkpoints.
        self.Encoder = _Encoder(num_downsample, num_feat, num_mask_channels)
        self.Decoder = _Decoder(num_downsample, num_upsample, num_feat, num_mask_channels)
        self.out = nn.Module()
        for j in range(num_upsample):
            channels = num_mask_channels * num_feat * 2 ** (num_downsample - 1 - j)
            project = nn.Conv1d(channels, num_mask_channels * output_dim, 1, groups=num_mask_channels)
            self.out.add_module(f"out_{j}", nn.Sequential(project, nn.Tanh()))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] and mask (B, R, H, W) to codes (B, R, U*d) in (-1, 1).

        One image broadcasts to all masks.

        Raises:
            ValueError: height or width is not divisible by 2^N, or a mask with another size or number of
                regions.
        """
        check_style_inputs(image, mask, self.num_regions, self.factor)
        features = self.Encoder(image)
        x, codes = features.pop(), []  # (B, R*f*2^N, H/2^N, W/2^N)
        for j, decode in enumerate(self.Decoder.children()):
            if j > 0:
                x = self._join(x, features.pop())  # (B, R*2c, h, w)
            x = decode(x)  # (B, R*c, 2h, 2w)
            codes.append(self._pool(x, mask, getattr(self.out, f"out_{j}")))  # (B, R, d)
        return torch.cat(codes, 2)  # (B, R, U*d)

    def _join(self, x: Tensor, feature: Tensor) -> Tensor:
        if not self.align_regions:
            return torch.cat([x, feature], 1)
        parts = [rearrange(each, "b (r c) h w -> b r c h w", r=self.num_regions) for each in (x, feature)]
        return rearrange(torch.cat(parts, 2), "b r c h w -> b (r c) h w")

    def _pool(self, x: Tensor, mask: Tensor, project: nn.Module) -> Tensor:
        """Average each region's channels over its pixels and project them to (B, R, d)."""
        mask = F.interpolate(mask.to(x.dtype), size=x.shape[-2:], mode="nearest").flatten(2)  # (B, R, h*w)
        x = rearrange(x, "b (r c) h w -> b r c (h w)", r=self.num_regions)
        mean = torch.einsum("brcn,brn->brc", x, mask) / (mask.sum(2)[..., None] + 1e-5)  # (B, R, c)
        code = project(rearrange(mean, "b r c -> b (r c) 1"))  # (B, R*d, 1)
        return rearrange(code, "b (r d) 1 -> b r d", r=self.num_regions)


class _Encoder(nn.Module):
    """Feature maps of the image at N + 1 scales."""

    def __init__(self, num_downsample: int, num_feat: int, regions: int) -> None:
        super().__init__()
        channels = regions * num_feat
        self.first_layer = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1), GroupNorm(regions, channels), nn.ReLU()
        )
        for i in range(num_downsample):
            conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, groups=regions)
            channels *= 2
            self.add_module(f"enc_layer_{i}", nn.Sequential(conv, GroupNorm(regions, channels), nn.ReLU()))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of enc_layer_0 .. enc_layer_{N-1}, coarsest last."""
        first, *layers = self.children()
        x, features = first(image), []
        for layer in layers:
            x = layer(x)
            features.append(x)
        return features


class _Decoder(nn.Module):
    """Upsampling layers; `StyleEncoder` concatenates encoder features between them."""

    def __init__(self, num_downsample: int, num_upsample: int, num_feat: int, regions: int) -> None:
        super().__init__()
        channels = regions * num_feat * 2**num_downsample
        for j in range(num_upsample):
            out = regions * num_feat * 2 ** (num_downsample - 1 - j)
            self.add_module(
                f"dec_layer_{j}",
                nn.Sequential(
                    nn.Upsample(scale_factor=2, mode="bilinear"),
                    nn.Conv2d(channels, out, 3, padding=1, groups=regions),
                    GroupNorm(regions, out),
                    nn.ReLU(),
                ),
            )
            channels = 2 * out


def check_style_inputs(image: Tensor, mask: Tensor, regions: int, factor: int) -> None:
    """Raise ValueError if the image (B, 3, H, W) is not divisible by `factor` or the mask is not (B, R, H, W)."""
    H, W = image.shape[-2:]
    if H % factor or W % factor:
        raise ValueError(
            f"image size must be a multiple of {factor}, which is what the style encoder downsamples by, got {H}x{W}; "
            "resize the image or reduce num_downsample"
        )
    if mask.ndim != 4 or mask.shape[1:] != (regions, H, W):
        raise ValueError(f"mask must have shape (batch, {regions}, {H}, {W}), got {tuple(mask.shape)}")
