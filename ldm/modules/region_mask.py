"""A label map seen at every resolution of the network."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 2.0  # of a grid of places, in lengths of its frame
PICTURE = "picture"
FAINTEST = 1e-12  # weight of a place along an axis; its square is far from what float32 rounds to nothing


class RegionMask:
    """A mask (B, R, H, W) and its reductions, each made once.

    With `shares`, the pixels of a reduction hold the share of their area that a region covers, so that its edges are
    known more finely than its pixels; otherwise the nearest label, as published.

    With a `grid` of n, each region holds n x n places, which lie in its frame (`Frames`, which also explains `frames`);
    what is said of regions then holds for places.

    `exclusive` tells whether every pixel is marked by at most one region. Label maps always are; only then can
    mask attention be a lookup.
    """

    def __init__(
        self, mask: Tensor, shares: bool = False, grid: int = 1, frames: Mapping[int, int | str] | None = None
    ) -> None:
        """Take a mask (B, R, H, W), 0 where a region is absent; raises ValueError for another shape."""
        if mask.ndim != 4:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; wanted one-hot (batch, regions, height, width)"
            )
        self.mask, self.shares, self.grid = mask, shares, grid
        self.frames = Frames.of(mask, frames) if grid > 1 else None
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
        assert self.frames is not None  # where there are places
        rows, columns = (near.to(codes.dtype) for near in self.frames.nearness(size, self.grid))
        lines = rows.transpose(2, 3) @ codes.reshape(B, R, self.grid, -1)  # B R h n*D
        lines = lines.unflatten(3, (self.grid, -1)).transpose(3, 4) @ columns[:, :, None]  # B R h D w
        mixed = (lines * regions[:, :, :, None]).sum(1).transpose(2, 3)  # B h w D
        return mixed.reshape(B, h * w, -1) + nobody * codes.mean(1, keepdim=True)

    def attention_bias(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return what is added to the logits at `size`, (B, 1, h*w, R*n*n).

        0, or the most negative finite value; with shares, the logarithm of the share, which weights the codes by it.
        """
        mask = self.resize(size)
        if self.frames is not None:
            mask = mask[:, :, None] * self.frames.places(size, self.grid).to(mask.dtype)  # B R n*n h w
        mask = mask.reshape(len(mask), -1, size[0] * size[1]).transpose(1, 2).to(dtype)  # B h*w R*n*n
        bias = mask.clamp(min=torch.finfo(dtype).tiny).log()
        return bias.masked_fill(mask == 0, torch.finfo(dtype).min)[:, None]


class Frames(NamedTuple):
    """Where the grids of places lie, a frame for each region: a centre, and a length along each axis.

    Places lie on a grid that reaches from -2 to 2 lengths of their frame, and fade into each other: how much of each a
    pixel p has is the softmax of -|p - place|^2 / (2 s^2), s half the distance of two places.
    """

    centres: Tensor  # B R 2, down and across, the picture being -1 .. 1; float32 at least
    lengths: Tensor  # B R 2

    @classmethod
    def of(cls, mask: Tensor, about: Mapping[int, int | str] | None = None) -> "Frames":
        """Return the frames of the regions of mask (B, R, H, W), one-hot or shares.

        A region's frame is its own centre and spread, so that its places go with it wherever it lies and however large
        it is. `about` gives some regions another one: that of the region of a number, where it is there, or all of
        the "picture".
        """
        # Squares of distances overflow float16.
        exact = mask.to(torch.promote_types(mask.dtype, torch.float32))
        axes = [_centre_and_spread(exact.sum(5 - axis)) for axis in (2, 3)]
        centres, lengths = (torch.stack(each, 2) for each in zip(*axes, strict=True))
        there = (exact.flatten(2).amax(2) > 0)[..., None]  # B R 1
        framed = centres.clone(), lengths.clone()
        for region, other in (about or {}).items():
            if not isinstance(other, int):
                framed[0][:, region], framed[1][:, region] = 0, 1 / REACH
                continue
            for frame, own in zip(framed, (centres, lengths), strict=True):
                frame[:, region] = torch.where(there[:, other], own[:, other], own[:, region])
        return cls(*framed)

    def nearness(self, size: tuple[int, int], grid: int) -> tuple[Tensor, Tensor]:
        """Return the factors of `places`: of rows (B, R, grid, h) and of columns (B, R, grid, w).

        They are positive, so that what is said of a place without any pixel of its region can come from the nearest.
        """
        rows, columns = (
            _shares_of_places((_middles(length, self.centres) - centre[..., None]) / unit[..., None], grid)
            for length, centre, unit in zip(size, self.centres.unbind(2), self.lengths.unbind(2), strict=True)
        )
        return rows, columns

    def places(self, size: tuple[int, int], grid: int) -> Tensor:
        """Return how much of each place of a region a pixel has, (B, R, grid*grid, h, w), row by row; sums to 1."""
        rows, columns = self.nearness(size, grid)
        return (rows[:, :, :, None, :, None] * columns[:, :, None, :, None, :]).flatten(2, 3)


def _centre_and_spread(profile: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the regions of a profile along one axis (B, R, length) lie, and how wide they are: (B, R) each."""
    here = _middles(profile.shape[-1], profile)
    share = profile / profile.sum(-1, keepdim=True).clamp(min=1e-6)
    centre = (share * here).sum(-1, keepdim=True)
    variance = (share * (here - centre).square()).sum(-1)
    return centre[..., 0], variance.sqrt().clamp(min=1 / profile.shape[-1])


def check_frames(about: Mapping[int, int | str] | None, regions: int, grid: int) -> dict[int, int | str]:
    """Return the frames that a YAML asks for.

    Raises:
        ValueError: for regions that are not there, in other frames than there are, or without a grid.
    """
    about = dict(about or {})
    numbers = range(regions)
    known = all(
        region in numbers and (other == PICTURE or (isinstance(other, int) and other in numbers))
        for region, other in about.items()
    )
    if about and (grid == 1 or not known):
        raise ValueError(
            f"the frames of regions are {about}, the grid's side is {grid}; wanted numbers of regions, 0 .. "
            f"{regions - 1}, each with that of another one or {PICTURE!r}, and a grid of 2 or more"
        )
    return about


def between_places(grid: int, coarser: int, like: Tensor) -> Tensor:
    """Return the weights of a coarser grid's places at those of a grid, along one axis: (grid, coarser)."""
    return _shares_of_places(_anchors(grid, like), coarser).T


def _shares_of_places(u: Tensor, grid: int) -> Tensor:
    """Return the weights of places at u (..., length), in lengths of the frame: (..., grid, length)."""
    distances = (u[..., None, :] - _anchors(grid, u)[:, None]) / (REACH / grid)
    return (-distances.square() / 2).softmax(-2).clamp(min=FAINTEST)


def _anchors(grid: int, like: Tensor) -> Tensor:
    """Return where the places of a grid lie along an axis, in lengths of the frame, (grid,)."""
    return 2 * REACH / grid * (torch.arange(grid, device=like.device, dtype=like.dtype) - (grid - 1) / 2)


def _middles(length: int, like: Tensor) -> Tensor:
    """Return where the centres of `length` pixels lie on -1 .. 1."""
    return (2 * torch.arange(length, device=like.device, dtype=like.dtype) + 1) / length - 1
