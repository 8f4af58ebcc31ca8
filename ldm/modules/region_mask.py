"""A label map seen at every resolution of the network."""

import torch
import torch.nn.functional as F
from torch import Tensor


class RegionMask:
    """A mask (B, R, H, W) and its reductions, each made once.

    With `shares`, the pixels of a reduction hold the share of their area that a region covers, so that its edges are
    known more finely than its pixels; otherwise the nearest label, as published.

    `exclusive` tells whether every pixel is marked by at most one region. Label maps always are; only then can
    mask attention be a lookup.
    """

    def __init__(self, mask: Tensor, shares: bool = False) -> None:
        """Take a mask (B, R, H, W), 0 where a region is absent; raises ValueError for another shape."""
        if mask.ndim != 4:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; wanted one-hot (batch, regions, height, width)"
            )
        self.mask, self.shares = mask, shares
        self.exclusive = bool((((mask == 0) | (mask == 1)).all() & (mask.sum(1) <= 1).all()).item())
        self._resized: dict[tuple[int, int], Tensor] = {}
        self._labels: dict[tuple[int, int], Tensor] = {}
        self._biases: dict[tuple[tuple[int, int], torch.dtype, int], Tensor] = {}

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
        regions = self.resize(size).flatten(2).transpose(1, 2)  # B h*w R
        return torch.cat([regions, 1 - regions.sum(2, keepdim=True)], 2)

    def attention_bias(self, size: tuple[int, int], dtype: torch.dtype, tokens: int = 1) -> Tensor:
        """Return what is added to the logits at `size`, (B, 1, h*w, tokens*R), the same for each of a region's tokens.

        0, or the most negative finite value; with shares, the logarithm of the share, which weights the tokens by it.
        """
        key = size, dtype, tokens
        if key not in self._biases:
            mask = self.resize(size).flatten(2).transpose(1, 2).to(dtype)  # B h*w R
            bias = mask.clamp(min=torch.finfo(dtype).tiny).log()
            bias = bias.masked_fill(mask == 0, torch.finfo(dtype).min)
            self._biases[key] = bias.repeat(1, 1, tokens)[:, None]
        return self._biases[key]
