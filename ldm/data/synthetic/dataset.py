"""Synthetic faces with exact label maps, generated from a seed without files.

Shape (`FaceShape`) and style (`FaceStyle`) are sampled independently. Rendering the shape of one face in the
style of another, for all regions or some, gives the ground truth of a style swap.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.synthetic.points import Points
from ldm.data.synthetic.rasterize import LEFT, SIDES, Layout
from ldm.data.synthetic.rng import FLIP_STREAM, FaceRNG
from ldm.data.synthetic.sample_shape import draw_shape
from ldm.data.synthetic.sample_style import FaceStyle, draw_style
from ldm.data.synthetic.shape import FaceShape

__all__ = ["FaceShape", "FaceStyle", "SyntheticFaces", "draw_shape", "draw_style", "render"]

Image = NDArray[np.uint8]
MIN_SIZE = 16  # smaller eyes and lips have no pixels
SECOND_SHAPES = 2**30  # index of the first face whose shape is used for `other_shape`


def render(shape: FaceShape, style: FaceStyle, size: int) -> tuple[Image, Image]:
    """Render a face.

    Args:
        shape: Geometry of the regions.
        style: Appearance of the regions.
        size: Height and width in pixels, a multiple of 4, at least 16.

    Returns:
        Image (size, size, 3) and label map (size, size), both uint8.

    Raises:
        ValueError: `size` is too small or not a multiple of 4.
    """
    _check_size(size)
    planes, labels = _render_planes(shape, style, size)
    return np.ascontiguousarray(planes.transpose(1, 2, 0)), labels


class SyntheticFaces(Dataset[dict[str, Any]]):
    """Dataset of synthetic faces with the regions of CelebAMask-HQ.

    Items: `image` (3, size, size) float32 in [-1, 1], `labels` (size, size) uint8, and `name`, the index of
    the face; with `other_shape` also `other_image` and `other_labels`.

    Args:
        size: Height and width in pixels, a multiple of 4, at least 16.
        length: Number of faces.
        seed: Seed of the series; use different ones for training and validation.
        start: Index of the first face in the series.
        horizontal_flip: Flip half of the faces, the same ones in every epoch; left and right regions swap
            labels.
        other_shape: Render each style in a second shape too.

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
            raise ValueError(f"length must be at least 1, got {length}")
        if seed < 0 or start < 0:
            raise ValueError(f"seed and start must be at least 0, got seed {seed}, start {start}")
        self.size, self.length, self.seed, self.start = size, length, seed, start
        self.horizontal_flip, self.other_shape = horizontal_flip, other_shape
        self._mirror = np.array(CELEBAMASK_HQ.mirror, dtype=np.uint8)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> dict[str, Any]:
        if not -self.length <= item < self.length:
            raise IndexError(f"index {item} is out of range for {self.length} faces")
        index = self.start + item % self.length
        image, labels = self._face(index, index)
        face = {"image": image, "labels": labels, "name": self.name(item)}
        if self.other_shape:
            face["other_image"], face["other_labels"] = self._face(SECOND_SHAPES + index, index)
        return face

    def name(self, item: int) -> str:
        """Return the name of an item: the index of the face in the series, with six digits."""
        return f"{self.start + item % self.length:06d}"

    def _face(self, shape: int, style: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image and labels of the face `shape` in the style of the face `style`, flipped as the latter."""
        planes, labels = _render_planes(draw_shape(self.seed, shape), draw_style(self.seed, style), self.size)
        if self.horizontal_flip and FaceRNG(self.seed, style, FLIP_STREAM).bernoulli(0.5):
            planes, labels = planes[:, :, ::-1], self._mirror[labels[:, ::-1]]
        pixels = torch.from_numpy(np.ascontiguousarray(planes))
        return pixels.to(torch.float32) / 127.5 - 1, torch.from_numpy(np.ascontiguousarray(labels))


def _check_size(size: int) -> None:
    """Raise ValueError for sizes that a first stage with f = 4 cannot encode."""
    if size < MIN_SIZE or size % 4:
        raise ValueError(
            f"size must be a multiple of 4 (downsampling of the first stage) and at least {MIN_SIZE}, got {size}"
        )


def _render_planes(shape: FaceShape, style: FaceStyle, size: int) -> tuple[Image, Image]:
    """Return image (3, size, size) and label map (size, size): `render` with channels first."""
    layout = Layout(shape, size)
    labels = layout.labels.ravel()
    order = np.argsort(labels, kind="stable")  # groups the pixels by region
    grids = (SIDES[layout.labels], layout.u, layout.v, layout.x, layout.y, layout.shadow())
    columns = [grid.ravel().take(order) for grid in grids]
    colors = np.empty((3, labels.size))
    stops = np.cumsum(np.bincount(labels, minlength=len(style.appearances))).tolist()
    start = 0
    for region, (appearance, stop) in enumerate(zip(style.appearances, stops, strict=True)):
        if start == stop or (region in LEFT and style.appearances[region + 1] is appearance):
            continue  # no pixels, or a left region that is painted together with the right one
        side, u, v, x, y, shadow = (column[start:stop] for column in columns)
        points = Points(shape, side, u, v, x, y, shadow, 2 / (size * shape.pose.scale))
        colors[:, start:stop] = appearance.paint(points)
        start = stop
    colors *= 255
    colors += 0.5  # rounds together with the conversion to integers
    inverse = np.empty_like(order)
    inverse[order] = np.arange(order.size)
    planes = np.clip(colors, 0, 255, out=colors).astype(np.uint8).take(inverse, axis=1)
    return planes.reshape(3, size, size), layout.labels
