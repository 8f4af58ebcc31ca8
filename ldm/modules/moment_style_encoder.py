"""Style encoder for small models: moments of colors and features, pooled over each region.

The published `ldm.modules.style_encoder.StyleEncoder` has separate convolutions and norms for each region.
With few channels, a region then represents fewer than three colors, and norms discard its brightness. Here
the regions share convolutions without norms, and each code is computed from the moments of the features over
the region's pixels.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.modules.layers import conv3x3, full_precision
from ldm.modules.region_mask import Frames, check_frames, coarse_cell_weights
from ldm.modules.style_encoder import check_style_inputs

MOMENTS = 6  # 1, u, v, u^2 - 1, uv, v^2 - 1, with region coordinates u, v


class MomentStyleEncoder(nn.Module):
    """Encodes image and mask into one code per region, from moments up to order two of colors and features.

    The moments of f are its means over a region weighted by 1, u, v, u^2 - 1, uv and v^2 - 1, where u, v are
    coordinates relative to the region's center in units of its standard deviation: mean, gradient and
    curvature.

    Args (the YAML's keys):
        num_mask_channels: R, the number of regions.
        output_dim: size of a region's code, per grid cell.
        channels: channels of the first of `num_downsample` stride-2 convolutions; each later one doubles
            them.
        num_downsample: N, number of stride-2 convolutions.
        hidden: hidden width of the per-region layers between moments and code.
        grid: n; a region's code is n x n tokens of size `output_dim`, each of which also encodes the colors
            and features around its cell of the style grid (`ldm.modules.region_mask.Frames`).
        coarse_grids: {region: side of a coarser grid} for pooling the features of its tokens. Use it for
            regions whose appearance should not follow their outline: hair transferred to another outline
            should not copy the positions of its strands.
        region_frames: the UNet's: {region: region frame of its grid}, for appearance that does not
            follow the region's outline: the background is fixed in the image, hair follows the skin.
        input_downsampling: downsample image and mask by this factor first, by averaging. At 256x256, 2 makes
            the encoder four times cheaper.

    Raises:
        ValueError: an unknown region, a coarse grid that is not coarser, `input_downsampling` below 1, or a
            grid without convolutions.
    """

    def __init__(
        self,
        num_mask_channels: int,
        output_dim: int,
        channels: int = 16,
        num_downsample: int = 2,
        hidden: int = 128,
        grid: int = 1,
        coarse_grids: Mapping[int, int] | None = None,
        region_frames: Mapping[int, int | str] | None = None,
        input_downsampling: int = 1,
    ) -> None:
        super().__init__()
        if input_downsampling < 1:
            raise ValueError(f"input_downsampling must be at least 1, got {input_downsampling}")
        if grid > 1 and num_downsample < 1:
            raise ValueError(
                f"num_downsample must be at least 1 with a grid of {grid}x{grid} cells, got {num_downsample}"
            )
        self.num_regions, self.style_dim = num_mask_channels, output_dim * grid**2
        self.input_downsampling, self.factor = input_downsampling, input_downsampling * 2**num_downsample
        self.grid, self.coarse_grids = grid, dict(coarse_grids or {})
        self.region_frames = check_frames(region_frames, num_mask_channels, grid)
        for region, side in self.coarse_grids.items():
            if not (0 <= region < num_mask_channels and 1 <= side < grid):
                raise ValueError(
                    f"coarse_grids must map regions in [0, {num_mask_channels - 1}] to grid sides in [1, {grid - 1}], "
                    f"got {{{region}: {side}}}"
                )
        for side in set(self.coarse_grids.values()):
            regions = [region for region, coarse in self.coarse_grids.items() if coarse == side]
            self.register_buffer(f"coarse_{side}", torch.tensor(regions), persistent=False)
        sizes = [3, *(channels * 2**i for i in range(num_downsample))]
        self.trunk = nn.ModuleList(conv3x3(size, out, stride=2) for size, out in pairwise(sizes))
        self.into = _PerRegion(num_mask_channels, MOMENTS * sum(sizes), hidden)
        self.out = _PerRegion(num_mask_channels, hidden, output_dim)
        if grid > 1:
            self.around = _PerRegion(num_mask_channels, sum(sizes), hidden)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] and mask (B, R, H, W) to codes (B, R, D) in (-1, 1), D = n*n*output_dim.

        One image broadcasts to all masks.

        Raises:
            ValueError: height or width is not divisible by input_downsampling * 2^N, or a mask with another
                size or number of regions.
        """
        check_style_inputs(image, mask, self.num_regions, self.factor)
        mask = mask.to(image.dtype)
        if (factor := self.input_downsampling) > 1:
            image, mask = F.avg_pool2d(image, factor), F.avg_pool2d(mask, factor)
        levels = [image]
        for conv in self.trunk:
            levels.append(F.silu(conv(levels[-1])))  # (B, C_i, H/2^i, W/2^i)
        masks = [F.interpolate(mask, size=level.shape[-2:], mode="area") for level in levels]
        hidden = self.into(torch.cat([_moments(*pair) for pair in zip(levels, masks, strict=True)], 2))
        if self.grid > 1:
            # Colors at half resolution are detailed enough for the grid.
            levels = [torch.cat([F.avg_pool2d(image, 2), levels[1]], 1), *levels[2:]]
            frames = Frames.of(mask, self.region_frames)
            pooled = [self._around(frames, *pair) for pair in zip(levels, masks[1:], strict=True)]
            hidden = hidden[:, :, None] + self.around(torch.cat(pooled, 3))  # (B, R, n*n, hidden)
        return self.out(F.silu(hidden)).tanh().flatten(2)  # (B, R, D)

    def _around(self, frames: Frames, x: Tensor, shares: Tensor) -> Tensor:
        """Return the local means of x (B, C, h, w) at each grid cell, (B, R, n*n, C); 0 in absent regions.

        A cell without pixels of its region uses the nearest ones, because its code may be applied to a larger
        shape.
        """
        with torch.autocast(
            x.device.type, enabled=False
        ):  # half precision loses the weights of distant cells
            x, shares = full_precision(x), full_precision(shares)
            rows, columns = self._axis_weights(frames, (x.shape[-2], x.shape[-1]))
            x = torch.cat([x, torch.ones_like(x[:, :1])], 1).transpose(1, 2)  # (B, h, C+1, w)
            within = x[:, None] * shares[:, :, :, None]  # (B, R, h, C+1, w)
            sums = rows @ rearrange(within, "b r h c w -> b r h (c w)")  # (B, R, n, (C+1)*w)
            sums = rearrange(sums, "b r n (c w) -> b r (n c) w", w=x.shape[-1]) @ columns.transpose(2, 3)
            sums = rearrange(sums, "b r (n c) m -> b r (n m) c", n=self.grid)  # (B, R, n*n, C+1)
            return sums[..., :-1] / sums[..., -1:].clamp(min=torch.finfo(x.dtype).tiny)

    def _axis_weights(self, frames: Frames, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return each cell's weights of rows (B, R, n, h) and of columns (B, R, n, w)."""
        rows, columns = frames.axis_weights(size, self.grid)
        for side in set(self.coarse_grids.values()):
            regions, spread = getattr(self, f"coarse_{side}"), coarse_cell_weights(self.grid, side, rows)
            for fine, wide in zip((rows, columns), frames.axis_weights(size, side), strict=True):
                fine.index_copy_(1, regions, spread @ wide.index_select(1, regions))
        return rows, columns


class _PerRegion(nn.Module):
    """One linear layer per region."""

    def __init__(self, regions: int, size: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(regions, size, out) * size**-0.5)
        self.bias = nn.Parameter(torch.zeros(regions, out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, R, size) to (B, R, out), or (B, R, n, size) to (B, R, n, out)."""
        if x.ndim == 4:
            return torch.einsum("brni,rio->brno", x, self.weight) + self.bias[:, None]
        return torch.einsum("bri,rio->bro", x, self.weight) + self.bias


def _moments(x: Tensor, mask: Tensor) -> Tensor:
    """Return `_exact_moments` in float32 or higher: half precision cancels in differences of products."""
    with torch.autocast(x.device.type, enabled=False):
        return _exact_moments(full_precision(x), full_precision(mask))


def _exact_moments(x: Tensor, mask: Tensor) -> Tensor:
    """Return the moments of x (B, C, h, w) over each region of mask (B, R, h, w), (B, R, 6*C); 0 in absent regions.

    Moments about the image center come from one matrix product; those about region centers follow from them.
    """
    h, w = x.shape[-2:]
    p = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype).expand(h, w).flatten()
    q = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None].expand(h, w).flatten()
    powers = torch.stack([torch.ones_like(p), p, q, p * p, p * q, q * q])  # (6, h*w)
    weights = mask.flatten(2)
    weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-4)  # (B, R, h*w)
    raw_coordinates = (weights @ powers.T)[..., None]  # (B, R, 6, 1)
    _, cu, cv, pp, _, qq = raw_coordinates.unbind(2)  # (B, R, 1)
    smallest = 1 / max(h, w)
    su = (pp - cu.square()).clamp(min=smallest**2).sqrt()
    sv = (qq - cv.square()).clamp(min=smallest**2).sqrt()
    raw = weights @ (powers[:, None] * x.flatten(2)[:, None]).flatten(1, 2).transpose(1, 2)  # (B, R, 6*C)
    f, fp, fq, fpp, fpq, fqq = raw.chunk(MOMENTS, 2)  # (B, R, C)
    fu, fv = (fp - cu * f) / su, (fq - cv * f) / sv
    fuu = (fpp - 2 * cu * fp + cu.square() * f) / su.square() - f
    fuv = (fpq - cu * fq - cv * fp + cu * cv * f) / (su * sv)
    fvv = (fqq - 2 * cv * fq + cv.square() * f) / sv.square() - f
    return torch.cat([f, fu, fv, fuu, fuv, fvv], 2)
