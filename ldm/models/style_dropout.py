"""What training withholds from the network, so that it can do without: styles, of images or of regions, and masks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.models.picture_draws import PictureDraws


@dataclass(frozen=True)
class StyleDropout:
    """Replaces styles by those of an empty image, or style and mask by zeros.

    Attributes:
        image: probability that all styles of an image are those of an empty one.
        region: the same of single regions, each for itself.
        mask: probability that an image has neither style nor mask: zeros.

    Raises:
        ValueError: a probability outside 0 .. 1.
    """

    image: float = 0.0
    region: float = 0.0
    mask: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("", self.image), ("region_", self.region), ("mask_", self.mask)):
            if not 0 <= value <= 1:
                raise ValueError(f"probability_of_{name}discard is {value}; wanted 0 .. 1")

    def __call__(
        self,
        encode: Callable[[Tensor, Tensor], Tensor],
        image: Tensor,
        y: Tensor,
        draws: PictureDraws | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return styles (B, R, D) and masks (B, R, H, W), some of them dropped.

        Args:
            encode: image and mask to styles.
            image: (B, 3, H, W) in [-1, 1].
            y: one-hot masks (B, R, H, W).
            draws: of these pictures; None draws from torch's random state.
        """
        B, R = y.shape[:2]
        draws = draws or PictureDraws(None, B, image.device)
        if self.image:
            kept = draws.uniform() >= self.image
            image = image * kept[:, None, None, None]
        context = encode(image, y)
        if self.region:
            dropped = draws.uniform((R, 1)) < self.region
            context = torch.where(dropped, encode(torch.zeros_like(image), y), context)
        if self.mask:
            kept = (draws.uniform() >= self.mask).to(y.dtype)
            context, y = context * kept[:, None, None], y * kept[:, None, None, None]
        return context, y
