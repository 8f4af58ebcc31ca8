"""Photos and their label maps, moved and recoloured together at random."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.labels import UNLABELLED


class Augmentation:
    """Turn, scale, shift and recolour every pair of a batch differently.

    Args:
        degrees: largest turn either way.
        scale: largest factor of enlarging or shrinking, at least 1.
        shift: largest shift, as a share of the side.
        colour: largest change of brightness, contrast and saturation, as a share.

    Raises:
        ValueError: a negative number, or `scale` below 1.
    """

    def __init__(
        self, degrees: float = 0.0, scale: float = 1.0, shift: float = 0.0, colour: float = 0.0
    ) -> None:
        if min(degrees, shift, colour) < 0 or scale < 1:
            raise ValueError(
                f"augmentation: degrees {degrees}, scale {scale}, shift {shift}, colour {colour}; "
                "wanted 0 or more, scale 1 or more"
            )
        self.degrees, self.scale, self.shift, self.colour = degrees, scale, shift, colour

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Change image (B, 3, H, W) in [-1, 1] and labels (B, H, W), uint8; what comes in from outside is unlabelled.

        Where the photo ends its edge is continued.
        """
        where = F.affine_grid(self._turns(image), list(image.shape), align_corners=False)  # (B, H, W, 2)
        moved = F.grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=False)
        # Label + 1, so that the zeros from outside can be told from region 0.
        shifted = F.grid_sample(labels[:, None].float() + 1, where, mode="nearest", align_corners=False)
        inside = shifted[:, 0].round().long() - 1
        return self._recoloured(moved), torch.where(inside < 0, UNLABELLED, inside).to(labels.dtype)

    def _turns(self, image: Tensor) -> Tensor:
        """Return affine maps (B, 2, 3) from the new picture's coordinates to the old one's."""
        B, _, H, W = image.shape
        angle = _between(B, self.degrees, image) * math.pi / 180
        factor = torch.exp(_between(B, math.log(self.scale), image))
        x, y = 2 * _between(B, self.shift, image), 2 * _between(B, self.shift, image)
        cos, sin = factor * angle.cos(), factor * angle.sin()
        rows = [torch.stack([cos, -sin * H / W, x], 1), torch.stack([sin * W / H, cos, y], 1)]
        return torch.stack(rows, 1)

    def _recoloured(self, image: Tensor) -> Tensor:
        brightness, contrast, saturation = (
            1 + _between(len(image), self.colour, image)[:, None, None, None] for _ in range(3)
        )
        light = (image + 1) * brightness / 2
        mean = light.mean((1, 2, 3), keepdim=True)
        light = mean + (light - mean) * contrast
        grey = light.mean(1, keepdim=True)
        return ((grey + (light - grey) * saturation).clamp(0, 1) * 2) - 1


def _between(count: int, limit: float, like: Tensor) -> Tensor:
    """Draw `count` numbers evenly between -limit and limit."""
    return (2 * torch.rand(count, device=like.device, dtype=like.dtype) - 1) * limit
