"""Batches of images, label maps and style codes: add the batch dimension, broadcast, check and convert."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ldm.pipeline.style_code import StyleCode

MAX_VALUE = 1.25  # of images: interpolation overshoots [-1, 1], other value ranges exceed this


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
        ValueError: an empty batch, or batch sizes that are neither equal nor 1.
    """
    count = max(map(len, parts.values()))
    found = " and ".join(f"{len(part)} {name}" for name, part in parts.items())
    if not all(map(len, parts.values())):
        raise ValueError(f"expected at least one of each, got {found}")
    if any(len(part) not in (1, count) for part in parts.values()):
        raise ValueError(f"batch sizes must be equal or 1, got {found}")
    return [part.expand(count, *part.shape[1:]) for part in parts.values()]


def slices(count: int, size: int) -> Iterator[slice]:
    """Yield the rows of batches of at most `size`."""
    return (slice(start, start + size) for start in range(0, count, size))


def checked_images(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W) in [-1, 1] as float32.

    Raises:
        ValueError: integers, another number of channels, non-finite values, or values far outside [-1, 1].
    """
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating-point values in [-1, 1], got {images.dtype}; convert 0..255 by x / 127.5 - 1"
        )
    if images.shape[1] != 3:
        raise ValueError(f"images must have 3 channels, (B, 3, H, W), got {tuple(images.shape)}")
    if not images.isfinite().all():
        raise ValueError("the image has non-finite values (NaN or inf); check how it was loaded")
    low, high = (float(bound) for bound in images.aminmax()) if images.numel() else (0.0, 0.0)
    if max(-low, high) > MAX_VALUE:
        raise ValueError(f"images must be in [-1, 1], got values from {low:.4g} to {high:.4g}")
    return images.float()


def check_sizes(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless images (B, 3, H, W) and label maps (B, H, W) have the same size."""
    if images.shape[-2:] != labels.shape[-2:]:
        raise ValueError(
            f"images and label maps must be (B, 3, H, W) and (B, H, W), got {tuple(images.shape)} and "
            f"{tuple(labels.shape)}"
        )
