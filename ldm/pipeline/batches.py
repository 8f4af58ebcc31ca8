"""Batches of images, label maps and style codes: add the batch dimension, broadcast, check shapes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ldm.pipeline.style_code import StyleCode


def stack_codes(styles: Sequence[StyleCode]) -> Tensor:
    """Stack codes to (B, R, D)."""
    return torch.stack([style.codes for style in styles])


def with_batch(tensor: Tensor, ndim: int) -> Tensor:
    """Add the batch dimension if it is missing; `ndim` is 4 for images (B, 3, H, W), 3 for label maps (B, H, W).

    Raises:
        ValueError: any other number of dimensions.
    """
    if tensor.ndim == ndim - 1:
        return tensor[None]
    if tensor.ndim != ndim:
        expected = "an image (3, H, W) or (B, 3, H, W)" if ndim == 4 else "a label map (H, W) or (B, H, W)"
        raise ValueError(f"expected {expected}, got a tensor of shape {tuple(tensor.shape)}")
    return tensor


def broadcast(parts: Mapping[str, Tensor]) -> list[Tensor]:
    """Broadcast all parts (B, ...), given by name, to the largest batch size.

    Raises:
        ValueError: batch sizes that are neither equal nor 1.
    """
    count = max(map(len, parts.values()))
    if any(len(part) not in (1, count) for part in parts.values()):
        found = " and ".join(f"{len(part)} {name}" for name, part in parts.items())
        raise ValueError(f"batch sizes must be equal or 1, got {found}")
    return [part.expand(count, *part.shape[1:]) for part in parts.values()]


def check_images(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless images (B, 3, H, W) and label maps (B, H, W) fit and the images are finite."""
    same = images.shape[0] == labels.shape[0] and images.shape[-2:] == labels.shape[-2:]
    if not same or images.shape[1] != 3:
        raise ValueError(
            f"images and label maps must be (B, 3, H, W) and (B, H, W), got {tuple(images.shape)} and "
            f"{tuple(labels.shape)}"
        )
    check_finite(images)


def check_finite(images: Tensor) -> None:
    """Raise ValueError for NaN or infinite pixels."""
    if not images.isfinite().all():
        raise ValueError("the image has non-finite values (NaN or inf); check how it was loaded")
