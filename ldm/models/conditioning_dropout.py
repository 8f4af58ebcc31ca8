"""What training withholds from the network, so that it can do without: styles, of images or of regions, and masks.

And whose styles it shows: those of the image itself, or of the same looks in another shape, as a swap has them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.data.images import as_unit
from ldm.data.labels import one_hot
from ldm.models.per_sample_rng import PictureDraws


@dataclass(frozen=True)
class StyleDropout:
    """Replaces styles by those of an empty image, or style and mask by zeros.

    Attributes:
        image: probability that all styles of an image are those of an empty one.
        region: the same of single regions, each for itself.
        mask: probability that an image has neither style nor mask: zeros.
        other_shape: probability that an image's style is read from its batch's `other_image`.

    Raises:
        ValueError: a probability outside 0 .. 1.
    """

    image: float = 0.0
    region: float = 0.0
    mask: float = 0.0
    other_shape: float = 0.0

    def __post_init__(self) -> None:
        shares = {"discard": self.image, "region_discard": self.region, "mask_discard": self.mask}
        for name, value in {**shares, "other_shape": self.other_shape}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"probability_of_{name} is {value}; wanted 0 .. 1")

    def __call__(
        self,
        encode: Callable[[Tensor, Tensor], Tensor],
        image: Tensor,
        y: Tensor,
        draws: PictureDraws | None = None,
        others: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return styles (B, R, D) and masks (B, R, H, W), some of them dropped.

        Args:
            encode: image and mask to styles.
            image: (B, 3, H, W) in [-1, 1].
            y: one-hot masks (B, R, H, W).
            draws: of these pictures; None draws from torch's random state.
            others: `other_image` (B, 3, H, W) and `other_labels` (B, H, W), where `other_shape` asks for them.

        Raises:
            ValueError: they are asked for and are not there.
        """
        B, R = y.shape[:2]
        draws = draws or PictureDraws(None, B, image.device)
        seen = y
        if self.other_shape:
            image, seen = self._choose(image, y, draws, others or {})
        if self.image:
            kept = draws.uniform() >= self.image
            image = image * kept[:, None, None, None]
        context = encode(image, seen)
        if self.region:
            dropped = draws.uniform((R, 1)) < self.region  # B R 1
            # Only images that drop a region need the empty image's code. Without one, the first image stands in: under
            # FSDP every process calls the encoder equally often.
            rows = dropped.any(1).flatten().nonzero().flatten()
            rows = rows if len(rows) else rows.new_zeros(1)
            empty = encode(torch.zeros_like(image[rows]), seen[rows])
            context = context.index_copy(0, rows, torch.where(dropped[rows], empty, context[rows]))
        if self.mask:
            kept = (draws.uniform() >= self.mask).to(y.dtype)
            context, y = context * kept[:, None, None], y * kept[:, None, None, None]
        return context, y

    def _choose(
        self, image: Tensor, y: Tensor, draws: PictureDraws, others: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the images and masks that styles are read from."""
        if "other_image" not in others or "other_labels" not in others:
            raise ValueError(
                f"probability_of_other_shape is {self.other_shape}, but the training data have no other_image and "
                "other_labels; SyntheticFaces makes them with other_shape: true"
            )
        other = (draws.uniform() < self.other_shape)[:, None, None, None]
        other_y = one_hot(others["other_labels"], y.shape[1])
        return torch.where(other, as_unit(others["other_image"]), image), torch.where(other, other_y, y)
