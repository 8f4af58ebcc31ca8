"""A label map seen at every resolution of the network."""

from collections.abc import Sequence

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
    Those of the regions `in_picture` lie in the picture, the others' within their region.

    `exclusive` tells whether every pixel is marked by at most one region. Label maps always are; only then can
    mask attention be a lookup.
    """

    def __init__(
        self, mask: Tensor, shares: bool = False, grid: int = 1, in_picture: Sequence[int] = ()
    ) -> None:
        """Take a mask (B, R, H, W), 0 where a region is absent; raises ValueError for another shape."""
        if mask.ndim != 4:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; wanted one-hot (batch, regions, height, width)"
            )
        self.mask, self.shares, self.grid, self.in_picture = mask, shares, grid, in_picture
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
        """Return what each pixel at `size` is made of, (B, h*w, R+1): the share of each region, and of none.

        Only for an exclusive mask.
        """
        if size not in self._mixtures:
            shares = self.resize(size).flatten(2).transpose(1, 2)
            self._mixtures[size] = torch.cat([shares, 1 - shares.sum(2, keepdim=True)], 2)
        return self._mixtures[size]

    def mix(self, codes: Tensor, size: tuple[int, int]) -> Tensor:
        """Return codes as the pixels at `size` share their places, (B, h*w, D); the mean code where nothing is marked.

        Weights of places are products of one along each axis, so that this takes two small products.

        Args:
            codes: (B, R*n*n, D), place by place.
            size: (h, w).
        """
        regions, (h, w) = self.resize(size), size
        B, R = regions.shape[:2]
        nobody = 1 - regions.sum(1).flatten(1)[..., None]  # B h*w 1
        rows, columns = (
            near.to(codes.dtype) for near in nearness(self.mask, size, self.grid, self.in_picture)
        )
        lines = rows.transpose(2, 3) @ codes.reshape(B, R, self.grid, -1)  # B R h n*D
        lines = lines.unflatten(3, (self.grid, -1)).transpose(3, 4) @ columns[:, :, None]  # B R h D w
        mixed = (lines * regions[:, :, :, None]).sum(1).transpose(2, 3)  # B h w D
        return mixed.reshape(B, h * w, -1) + nobody * codes.mean(1, keepdim=True)

    def attention_bias(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return what is added to the logits at `size`, (B, 1, h*w, R*n*n).

        0, or the most negative finite value; with shares, the logarithm of the share, which weights the codes by it.
        """
        mask = self.resize(size)
        if self.grid > 1:
            mask = mask[:, :, None] * places(self.mask, size, self.grid, self.in_picture)  # B R n*n h w
        mask = mask.reshape(len(mask), -1, size[0] * size[1]).transpose(1, 2).to(dtype)  # B h*w R*n*n
        bias = mask.clamp(min=torch.finfo(dtype).tiny).log()
        return bias.masked_fill(mask == 0, torch.finfo(dtype).min)[:, None]


def places(mask: Tensor, size: tuple[int, int], grid: int, in_picture: Sequence[int] = ()) -> Tensor:
    """Return how much of each of a region's places a pixel has, (B, R, grid*grid, h, w); sums to 1 over places.

    Places lie on a grid within their region, in units of its spread about its centre, and fade into each other: the
    weights are the softmax of -|p - place|^2 / (2 s^2), s half the distance of two places. So they go with a region
    wherever it lies and however large it is.

    Args:
        mask: (B, R, H, W), one-hot or shares.
        size: (h, w), where the weights are wanted.
        grid: n; row by row.
        in_picture: regions whose grid covers the picture instead: what lies behind a head stays when the head moves.
    """
    rows, columns = nearness(mask, size, grid, in_picture)
    return (rows[:, :, :, None, :, None] * columns[:, :, None, :, None, :]).flatten(2, 3).to(mask.dtype)


def nearness(
    mask: Tensor, size: tuple[int, int], grid: int, in_picture: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """Return the factors of `places`: of rows (B, R, grid, h) and of columns (B, R, grid, w), float32 at least.

    They are positive, so that what is said of a place without any pixel of its region can come from the nearest.
    """
    exact = mask.to(torch.promote_types(mask.dtype, torch.float32))  # squares of distances overflow float16
    rows, columns = (
        _along(exact, axis, length, grid, in_picture) for axis, length in ((2, size[0]), (3, size[1]))
    )
    return rows, columns


def _along(mask: Tensor, axis: int, length: int, grid: int, in_picture: Sequence[int]) -> Tensor:
    """Return the weights of places along one axis of the picture, (B, R, grid, length)."""
    profile = mask.sum(5 - axis)  # B R H, or B R W
    here = _centres(profile.shape[-1], mask)
    share = profile / profile.sum(-1, keepdim=True).clamp(min=1e-6)
    centre = (share * here).sum(-1, keepdim=True)  # B R 1
    variance = (share * (here - centre).square()).sum(-1, keepdim=True)
    spread = variance.sqrt().clamp(min=1 / mask.shape[axis])
    if in_picture:
        centre[:, list(in_picture)], spread[:, list(in_picture)] = (
            0,
            1 / REACH,
        )  # so that places reach its edges
    return _shares_of_places((_centres(length, mask) - centre) / spread, grid)


def check_in_picture(in_picture: Sequence[int] | None, regions: int, grid: int) -> tuple[int, ...]:
    """Return the regions whose places lie in the picture; raises ValueError for one that is not there, or no grid."""
    if in_picture and (grid == 1 or not all(0 <= region < regions for region in in_picture)):
        raise ValueError(
            f"regions with places in the picture are {list(in_picture)}, the grid's side is {grid}; wanted regions "
            f"0 .. {regions - 1}, and a grid of 2 or more"
        )
    return tuple(in_picture or ())


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
