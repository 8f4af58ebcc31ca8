"""Conditioning dropout for classifier-free guidance: of styles, per image or per region, and of masks.

It also chooses the image that styles are read from: the training image, or one of the same appearance in
another shape, which matches style transfer at inference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.data.images import as_unit
from ldm.data.labels import one_hot
from ldm.models.per_sample_rng import PerSampleRNG


@dataclass(frozen=True)
class StyleDropout:
    """Replaces styles by those of an all-zero image, or style and mask by zeros.

    Attributes:
        image: probability of replacing all styles of an image by those of an all-zero image.
        region: the same probability for each region independently.
        mask: probability of replacing both style and mask of an image by zeros.
        other_shape: probability of reading the styles from the batch's `other_image`.

    Raises:
        ValueError: a probability outside [0, 1].
    """

    image: float = 0.0
    region: float = 0.0
    mask: float = 0.0
    other_shape: float = 0.0

    def __post_init__(self) -> None:
        shares = {"discard": self.image, "region_discard": self.region, "mask_discard": self.mask}
        for name, value in {**shares, "other_shape": self.other_shape}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"probability_of_{name} must be in [0, 1], got {value}")

    def __call__(
        self,
        encode: Callable[[Tensor, Tensor], Tensor],
        image: Tensor,
        y: Tensor,
        rng: PerSampleRNG | None = None,
        others: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return styles (B, R, D) and masks (B, R, H, W), some of them dropped.

        Args:
            encode: maps image and mask to styles; one image broadcasts to the masks.
            image: (B, 3, H, W) in [-1, 1].
            y: one-hot masks (B, R, H, W).
            rng: random numbers of these images; None uses torch's global generator.
            others: `other_image` (B, 3, H, W) and `other_labels` (B, H, W), required by `other_shape`.

        Raises:
            ValueError: `other_shape` is set and `others` lacks them.
        """
        B, R = y.shape[:2]
        rng = rng or PerSampleRNG(None, B, image.device)
        source_y = y
        if self.other_shape:
            image, source_y = self._choose(image, y, rng, others or {})
        if self.image:
            kept = rng.moved(~rng.events(self.image))
            image = image * kept[:, None, None, None]
        context = encode(image, source_y)
        if self.region:
            dropped = rng.events(self.region, (R, 1))  # (B, R, 1)
            # Only samples that drop a region need a code of the empty image. Without one, the first sample
            # stands in: under FSDP every process calls the encoder equally often.
            chosen = [i for i, regions in enumerate(dropped.flatten(1).tolist()) if any(regions)] or [0]
            rows = rng.moved(torch.tensor(chosen))
            empty = encode(torch.zeros_like(image[:1]), source_y[rows])
            mixed = torch.where(rng.moved(dropped[chosen]), empty, context[rows])
            context = context.index_copy(0, rows, mixed)
        if self.mask:
            kept = rng.moved(~rng.events(self.mask)).to(y.dtype)
            context, y = context * kept[:, None, None], y * kept[:, None, None, None]
        return context, y

    def _choose(
        self, image: Tensor, y: Tensor, rng: PerSampleRNG, others: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the images and masks that styles are read from."""
        if "other_image" not in others or "other_labels" not in others:
            raise ValueError(
                f"probability_of_other_shape is {self.other_shape}, but the training batches have no other_image and "
                "other_labels; set other_shape: true in SyntheticFaces, or the probability to 0"
            )
        other = rng.moved(rng.events(self.other_shape))[:, None, None, None]
        other_y = one_hot(others["other_labels"], y.shape[1], checked=True)
        return torch.where(other, as_unit(others["other_image"]), image), torch.where(other, other_y, y)
