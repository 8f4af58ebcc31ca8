"""A label map seen at every resolution of the network."""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 2.0  # of a region's grid of places, in units of the region's spread
FAINTEST = 1e-12  # weight of a place along an axis; its square is far from what float32 rounds to nothing


class RegionMask:
    """A mask (B, R, H, W) and its reductions, each made once.

    With `shares`, the pixels of a reduction hold the share of their area that a region covers, so that its edges are
    known more finely than its pixels; otherwise the nearest label, as published.

    With a `grid` of n, each region holds n x n places (see `places`); what is said of regions then holds for places.

    `exclusive` tells whether every pixel is marked by at most one region. Label maps always are; only then can
    mask attention be a lookup.
    """

    def __init__(self, mask: Tensor, shares: bool = False, grid: int = 1) -> None:
        """Take a mask (B, R, H, W), 0 where a region is absent; raises ValueError for another shape."""
        if mask.ndim != 4:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; wanted one-hot (batch, regions, height, width)"
            )
        self.mask, self.shares, self.grid = mask, shares, grid
        self.exclusive = bool((((mask == 0) | (mask == 1)).all() & (mask.sum(1) <= 1).all()).item())
        self._resized: dict[tuple[int, int], Tensor] = {}
        self._labels: dict[tuple[int, int], Tensor] = {}
        self._mixtures: dict[tuple[int, int], Tensor] = {}

    def resize(self, size: tuple[int, int]) -> Tensor:
        """Return the mask at `size`, (B, R, h, w), in [0, 1]."""
        if size not in self._resized:
            mode = "area" if self.shares else "nearest"
            self._resized[size] = F.interpolate(self.mask, size=size, mode=mode)
        return self._resized[size]

    def labels(self, size: tuple[int, int]) -> Tensor:
        """Return the region of each pixel at `size`, (B, h*w) in 0..R, where R means that none is marked.

        Only for an exclusive mask.
        """
        if size not in self._labels:
            mask = self.resize(size)
            unmarked = mask.sum(1) == 0
            labels = mask.argmax(1).masked_fill(unmarked, mask.shape[1])
            self._labels[size] = labels.flatten(1)
        return self._labels[size]

    def mixture(self, size: tuple[int, int]) -> Tensor:
        """Return what each pixel at `size` is made of, (B, h*w, R*n*n+1): the share of each place, and of none.

        Only for an exclusive mask.
        """
        if size not in self._mixtures:
            shares = self._shares(size)
            self._mixtures[size] = torch.cat([shares, 1 - shares.sum(2, keepdim=True)], 2)
        return self._mixtures[size]

    def _shares(self, size: tuple[int, int]) -> Tensor:
        """Return the share of each place in each pixel at `size`, (B, h*w, R*n*n)."""
        regions = self.resize(size)
        if self.grid > 1:
            regions = regions[:, :, None] * places(self.mask, size, self.grid)  # B R n*n h w
        return regions.reshape(len(regions), -1, size[0] * size[1]).transpose(1, 2)

    def attention_bias(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return what is added to the logits at `size`, (B, 1, h*w, R*n*n).

        0, or the most negative finite value; with shares, the logarithm of the share, which weights the codes by it.
        """
        mask = self._shares(size).to(dtype)  # B h*w R*n*n
        bias = mask.clamp(min=torch.finfo(dtype).tiny).log()
        return bias.masked_fill(mask == 0, torch.finfo(dtype).min)[:, None]


def places(mask: Tensor, size: tuple[int, int], grid: int) -> Tensor:
    """Return how much of each of a region's places a pixel has, (B, R, grid*grid, h, w); sums to 1 over places.

    Places lie on a grid within their region, in units of its spread about its centre, and fade into each other: the
    weights are the softmax of -|p - place|^2 / (2 s^2), s half the distance of two places. So they go with a region
    wherever it lies and however large it is.

    Args:
        mask: (B, R, H, W), one-hot or shares.
        size: (h, w), where the weights are wanted.
        grid: n; row by row.
    """
    rows, columns = nearness(mask, size, grid)
    return (rows[:, :, :, None, :, None] * columns[:, :, None, :, None, :]).flatten(2, 3).to(mask.dtype)


def nearness(mask: Tensor, size: tuple[int, int], grid: int) -> tuple[Tensor, Tensor]:
    """Return the factors of `places`: of rows (B, R, grid, h) and of columns (B, R, grid, w), float32 at least.

    They are positive, so that what is said of a place without any pixel of its region can come from the nearest.
    """
    exact = mask.to(torch.promote_types(mask.dtype, torch.float32))  # squares of distances overflow float16
    rows, columns = (_along(exact, axis, length, grid) for axis, length in ((2, size[0]), (3, size[1])))
    return rows, columns


def _along(mask: Tensor, axis: int, length: int, grid: int) -> Tensor:
    """Return the weights of places along one axis of the picture, (B, R, grid, length)."""
    profile = mask.sum(5 - axis)  # B R H, or B R W
    here = _centres(profile.shape[-1], mask)
    share = profile / profile.sum(-1, keepdim=True).clamp(min=1e-6)
    centre = (share * here).sum(-1, keepdim=True)  # B R 1
    variance = (share * (here - centre).square()).sum(-1, keepdim=True)
    spread = variance.sqrt().clamp(min=1 / mask.shape[axis])
    return _shares_of_places((_centres(length, mask) - centre) / spread, grid)


def between_places(grid: int, coarser: int, like: Tensor) -> Tensor:
    """Return the weights of a coarser grid's places at those of a grid, along one axis: (grid, coarser)."""
    return _shares_of_places(_anchors(grid, like), coarser).T


def _shares_of_places(u: Tensor, grid: int) -> Tensor:
    """Return the weights of places at u (..., length), in units of the region's spread: (..., grid, length)."""
    distances = (u[..., None, :] - _anchors(grid, u)[:, None]) / (REACH / grid)
    return (-distances.square() / 2).softmax(-2).clamp(min=FAINTEST)


def _anchors(grid: int, like: Tensor) -> Tensor:
    """Return where the places of a grid lie along an axis, in units of the region's spread, (grid,)."""
    return 2 * REACH / grid * (torch.arange(grid, device=like.device, dtype=like.dtype) - (grid - 1) / 2)


def _centres(length: int, like: Tensor) -> Tensor:
    """Return where the centres of `length` pixels lie on -1 .. 1."""
    return (2 * torch.arange(length, device=like.device, dtype=like.dtype) + 1) / length - 1
