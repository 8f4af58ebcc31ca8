"""The mask at every resolution of the network, and the style grid of each region."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ldm.modules.layers import full_precision

GRID_EXTENT = 2.0  # half the side of a style grid, in standard deviations of its region
WHOLE = "image"  # frame of the whole image; "picture" in older configs
MIN_CELL_WEIGHT = (
    1e-12  # smallest weight of a grid cell along an axis; its square does not underflow in float32
)


class RegionMask:
    """A mask (B, R, H, W) and its cached downsampled versions.

    With `area`, masks are downsampled by area, which keeps sub-pixel edges; otherwise by nearest neighbor
    (published).

    With a `grid` of n, each region has n x n style-grid cells in its region frame (see `Frames`, also for
    `frames`).

    `exclusive` is true if no pixel belongs to more than one region, as in every label map; only then is mask
    attention a lookup. None checks the mask, which synchronizes with the GPU.
    """

    def __init__(
        self,
        mask: Tensor,
        area: bool = False,
        grid: int = 1,
        frames: Mapping[int, int | str] | None = None,
        exclusive: bool | None = None,
    ) -> None:
        """Take a mask (B, R, H, W), 0 where a region is absent; raise ValueError for another shape."""
        if mask.ndim != 4:
            raise ValueError(
                f"mask must be one-hot (batch, regions, height, width), got shape {tuple(mask.shape)}"
            )
        self.mask, self.area, self.grid = mask, area, grid
        self.frames = Frames.of(mask, frames) if grid > 1 else None
        # Exported networks take label maps, in which each pixel has at most one region.
        self.exclusive = torch.compiler.is_exporting() or (
            _one_region_per_pixel(mask) if exclusive is None else exclusive
        )
        self._resized: dict[tuple[int, int], Tensor] = {}
        self._labels: dict[tuple[int, int], Tensor] = {}
        self._fractions: dict[tuple[int, int], Tensor] = {}

    def resize(self, size: tuple[int, int]) -> Tensor:
        """Return the mask downsampled to `size`, (B, R, h, w), in [0, 1]."""
        if size not in self._resized:
            mode = "area" if self.area else "nearest"
            self._resized[size] = F.interpolate(self.mask, size=size, mode=mode)
        return self._resized[size]

    def labels(self, size: tuple[int, int]) -> Tensor:
        """Return the region of each pixel at `size`, (B, h*w) in [0, R]; R marks unlabeled pixels.

        Requires an exclusive mask.
        """
        if size not in self._labels:
            mask = self.resize(size)
            unmarked = mask.sum(1) == 0
            labels = mask.argmax(1).masked_fill(unmarked, mask.shape[1])
            self._labels[size] = labels.flatten(1)
        return self._labels[size]

    def area_fractions(self, size: tuple[int, int]) -> Tensor:
        """Return the area fraction of each region and of unlabeled area in each pixel at `size`, (B, h*w, R+1).

        Requires an exclusive mask.
        """
        if size not in self._fractions:
            fractions = self.resize(size).flatten(2).transpose(1, 2)
            self._fractions[size] = torch.cat([fractions, 1 - fractions.sum(2, keepdim=True)], 2)
        return self._fractions[size]

    def interpolate_codes(self, codes: Tensor, size: tuple[int, int]) -> Tensor:
        """Interpolate grid-cell codes at the pixels of `size`, (B, h*w, D); the mean code in unlabeled pixels.

        Cell weights are separable, so two small matrix products are enough.

        Args:
            codes: one code per grid cell, (B, R*n*n, D).
            size: (h, w).
        """
        regions = self.resize(size)  # (B, R, h, w)
        R = regions.shape[1]
        unlabeled = 1 - regions.sum(1).flatten(1)[..., None]  # (B, h*w, 1)
        assert self.frames is not None  # set with a style grid
        rows, columns = (near.to(codes.dtype) for near in self.frames.axis_weights(size, self.grid))
        cells = rearrange(codes, "b (r n m) d -> b r n (m d)", r=R, n=self.grid)
        row_mix = rearrange(rows.transpose(2, 3) @ cells, "b r h (m d) -> b r h d m", m=self.grid)
        mixed_cells = row_mix @ columns[:, :, None]  # (B, R, h, D, w)
        mixed = rearrange((mixed_cells * regions[:, :, :, None]).sum(1), "b h d w -> b (h w) d")
        return mixed + unlabeled * codes.mean(1, keepdim=True)

    def attention_bias(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return the additive bias of the attention logits at `size`, (B, 1, h*w, R*n*n + 1).

        0 or minus infinity; with `area`, the log of the covered fraction, which weights the codes by it. The
        last column is of the mean code, which unlabeled pixels attend to: so every row has a finite value, in
        any dtype.
        """
        mask = self.resize(size)
        if self.frames is not None:
            mask = mask[:, :, None] * self.frames.cell_weights(size, self.grid).to(
                mask.dtype
            )  # (B, R, n*n, h, w)
        mask = mask.reshape(len(mask), -1, size[0] * size[1]).transpose(1, 2).to(dtype)  # (B, h*w, R*n*n)
        unlabeled = mask.sum(2, keepdim=True) == 0  # (B, h*w, 1)
        return torch.cat([mask, unlabeled.to(dtype)], 2).log()[:, None]


def _one_region_per_pixel(mask: Tensor) -> bool:
    return bool((((mask == 0) | (mask == 1)).all() & (mask.sum(1) <= 1).all()).item())


class Frames(NamedTuple):
    """Region frames: the center of each region's style grid and its standard deviation along each axis.

    The grid spans -2 to 2 standard deviations of its frame. A pixel p weights the cells by the softmax of
    -|p - cell center|^2 / (2 s^2), where s is half the distance between neighboring cells.
    """

    centers: Tensor  # (B, R, 2): y, x in image coordinates [-1, 1]; float32 or higher
    stds: Tensor  # (B, R, 2)

    @classmethod
    def of(cls, mask: Tensor, overrides: Mapping[int, int | str] | None = None) -> "Frames":
        """Compute the region frames of a mask (B, R, H, W), one-hot or area fractions.

        A region's frame is its centroid and standard deviation, so that its grid follows position and size.
        `overrides` replaces it for some regions: by the frame of another region, if present, or by the whole
        image ("image").
        """
        # Squared distances overflow in float16.
        exact = full_precision(mask)
        axes = [_center_and_spread(exact.sum(5 - axis)) for axis in (2, 3)]
        centers, stds = (torch.stack(each, 2) for each in zip(*axes, strict=True))
        present = (exact.flatten(2).amax(2) > 0)[..., None]  # (B, R, 1)
        framed = centers.clone(), stds.clone()
        for region, other in (overrides or {}).items():
            if not isinstance(other, int):
                framed[0][:, region], framed[1][:, region] = 0, 1 / GRID_EXTENT
                continue
            for frame, own in zip(framed, (centers, stds), strict=True):
                frame[:, region] = torch.where(present[:, other], own[:, other], own[:, region])
        return cls(*framed)

    def axis_weights(self, size: tuple[int, int], grid: int) -> tuple[Tensor, Tensor]:
        """Return the separable factors of `cell_weights`: rows (B, R, grid, h) and columns (B, R, grid, w).

        They are positive, so that a cell without pixels of its region still gets a value from the nearest
        ones.
        """
        rows, columns = (
            _cell_weights((_pixel_centers(length, self.centers) - center[..., None]) / unit[..., None], grid)
            for length, center, unit in zip(size, self.centers.unbind(2), self.stds.unbind(2), strict=True)
        )
        return rows, columns

    def cell_weights(self, size: tuple[int, int], grid: int) -> Tensor:
        """Return each pixel's weights of the cells in row-major order, (B, R, grid*grid, h, w); they sum to 1."""
        rows, columns = self.axis_weights(size, grid)
        return (rows[:, :, :, None, :, None] * columns[:, :, None, :, None, :]).flatten(2, 3)


def _center_and_spread(profile: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, (B, R) each, of region profiles (B, R, length) along one axis."""
    here = _pixel_centers(profile.shape[-1], profile)
    share = profile / profile.sum(-1, keepdim=True).clamp(min=1e-6)
    center = (share * here).sum(-1, keepdim=True)
    variance = (share * (here - center).square()).sum(-1)
    return center[..., 0], variance.sqrt().clamp(min=1 / profile.shape[-1])


def check_frames(overrides: Mapping[int, int | str] | None, regions: int, grid: int) -> dict[int, int | str]:
    """Validate the region frames of a YAML.

    Raises:
        ValueError: an unknown region or frame, or frames without a style grid.
    """
    overrides = {
        region: WHOLE if frame == "picture" else frame for region, frame in (overrides or {}).items()
    }
    numbers = range(regions)
    known = all(
        region in numbers and (other == WHOLE or (isinstance(other, int) and other in numbers))
        for region, other in overrides.items()
    )
    if overrides and (grid == 1 or not known):
        raise ValueError(
            f"region frames must map regions in [0, {regions - 1}] to another region or {WHOLE!r}, with a grid of 2 "
            f"or more, got {overrides} with grid {grid}"
        )
    return overrides


def coarse_cell_weights(grid: int, coarser: int, like: Tensor) -> Tensor:
    """Return the weights of a coarser grid's cells at the cells of a grid along one axis, (grid, coarser)."""
    return _cell_weights(_anchors(grid, like), coarser).T


def _cell_weights(u: Tensor, grid: int) -> Tensor:
    """Return the weights of the cells at frame coordinates u (..., length): (..., grid, length)."""
    distances = (u[..., None, :] - _anchors(grid, u)[:, None]) / (GRID_EXTENT / grid)
    return (-distances.square() / 2).softmax(-2).clamp(min=MIN_CELL_WEIGHT)


def _anchors(grid: int, like: Tensor) -> Tensor:
    """Return the cell centers along an axis in frame coordinates, (grid,)."""
    return (
        2 * GRID_EXTENT / grid * (torch.arange(grid, device=like.device, dtype=like.dtype) - (grid - 1) / 2)
    )


def _pixel_centers(length: int, like: Tensor) -> Tensor:
    """Return the centers of `length` pixels in [-1, 1]."""
    return (2 * torch.arange(length, device=like.device, dtype=like.dtype) + 1) / length - 1
