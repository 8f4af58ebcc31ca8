"""Faces and their exact label maps from a seed: the data set that needs no files.

Where each region lies (`FaceShape`) and how it looks (`FaceStyle`) are drawn independently, so the shape of one face
can be rendered in the style of another, as a whole or region by region: that picture is the true answer of a swap.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.synthetic.points import Points
from ldm.data.synthetic.rasterize import LEFT, SIDES, Layout
from ldm.data.synthetic.rng import FLIP_STREAM, Draws
from ldm.data.synthetic.sample_shape import draw_shape
from ldm.data.synthetic.sample_style import FaceStyle, draw_style
from ldm.data.synthetic.shape import FaceShape

__all__ = ["FaceShape", "FaceStyle", "SyntheticFaces", "draw_shape", "draw_style", "render"]

Image = NDArray[np.uint8]
SMALLEST = 16  # below, eyes and lips have no pixel left
OTHERS = 2**30  # faces from this number on lend their shapes to `other_shape`


def render(shape: FaceShape, style: FaceStyle, size: int) -> tuple[Image, Image]:
    """Draw the face of `shape` in the looks of `style`.

    Args:
        shape: Where the regions lie.
        style: How they look.
        size: Height and width in pixels, a multiple of 4, at least 16.

    Returns:
        The picture (size, size, 3) and its label map (size, size), both uint8.

    Raises:
        ValueError: `size` is too small or not a multiple of 4.
    """
    _check_size(size)
    planes, labels = _render_planes(shape, style, size)
    return np.ascontiguousarray(planes.transpose(1, 2, 0)), labels


class SyntheticFaces(Dataset[dict[str, Any]]):
    """A series of generated faces in CelebAMask-HQ's regions; reads no files.

    Args:
        size: Height and width in pixels, a multiple of 4, at least 16.
        length: Number of faces.
        seed: Which series; another one for validation gives other faces.
        start: Number of the first face within the series.
        horizontal_flip: Mirror half of the faces, always the same ones; left and right regions change places.
        other_shape: Draw each style a second time, in another shape.

    Items hold `image` (3, size, size) float32 in [-1, 1], `labels` (size, size) uint8 and `name`, the face's number;
    with `other_shape` also `other_image` and `other_labels`.

    Raises:
        ValueError: an argument is out of range.
    """

    label_set = CELEBAMASK_HQ

    def __init__(
        self,
        size: int,
        length: int,
        seed: int = 0,
        start: int = 0,
        horizontal_flip: bool = False,
        other_shape: bool = False,
    ) -> None:
        _check_size(size)
        if length < 1:
            raise ValueError(f"length {length}: a data set needs at least 1 face")
        if seed < 0 or start < 0:
            raise ValueError(f"seed and start must be 0 or more; found seed {seed}, start {start}")
        self.size, self.length, self.seed, self.start = size, length, seed, start
        self.horizontal_flip, self.other_shape = horizontal_flip, other_shape
        self._mirror = np.array(CELEBAMASK_HQ.mirror, dtype=np.uint8)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> dict[str, Any]:
        if not -self.length <= item < self.length:
            raise IndexError(f"face {item} of {self.length}")
        index = self.start + item % self.length
        image, labels = self._face(index, index)
        face = {"image": image, "labels": labels, "name": f"{index:06d}"}
        if self.other_shape:
            face["other_image"], face["other_labels"] = self._face(OTHERS + index, index)
        return face

    def _face(self, shape: int, style: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the picture and the labels of one face's shape in the looks of another, mirrored as the latter is."""
        planes, labels = _render_planes(draw_shape(self.seed, shape), draw_style(self.seed, style), self.size)
        if self.horizontal_flip and Draws(self.seed, style, FLIP_STREAM).chance(0.5):
            planes, labels = planes[:, :, ::-1], self._mirror[labels[:, ::-1]]
        pixels = torch.from_numpy(np.ascontiguousarray(planes))
        return pixels.to(torch.float32) / 127.5 - 1, torch.from_numpy(np.ascontiguousarray(labels))


def _check_size(size: int) -> None:
    """Raise ValueError unless the first stage can take pictures of this size."""
    if size < SMALLEST or size % 4:
        raise ValueError(
            f"size {size}: wanted a multiple of 4 (the first stage shrinks by 4), at least {SMALLEST}"
        )


def _render_planes(shape: FaceShape, style: FaceStyle, size: int) -> tuple[Image, Image]:
    """Return the picture as (3, size, size) and the label map (size, size): `render` with the channels first."""
    layout = Layout(shape, size)
    labels = layout.labels.ravel()
    order = np.argsort(labels, kind="stable")  # each region's pixels side by side
    grids = (SIDES[layout.labels], layout.u, layout.v, layout.x, layout.y, layout.shadow())
    columns = [grid.ravel().take(order) for grid in grids]
    colours = np.empty((3, labels.size))
    stops = np.cumsum(np.bincount(labels, minlength=len(style.looks))).tolist()
    start = 0
    for region, (look, stop) in enumerate(zip(style.looks, stops, strict=True)):
        if start == stop or (region in LEFT and style.looks[region + 1] is look):
            continue  # nothing to paint, or the right half of a pair will paint both at once
        side, u, v, x, y, shadow = (column[start:stop] for column in columns)
        points = Points(shape, side, u, v, x, y, shadow, 2 / (size * shape.pose.scale))
        colours[:, start:stop] = look.paint(points)
        start = stop
    colours *= 255
    colours += 0.5  # together with the cut to whole numbers, this rounds
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    planes = np.clip(colours, 0, 255, out=colours).astype(np.uint8).take(place, axis=1)
    return planes.reshape(3, size, size), layout.labels
