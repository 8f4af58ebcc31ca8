"""Random geometric and photometric augmentation of images with label maps."""

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.labels import UNLABELED
from ldm.data.transfer import to_device

BACKGROUND = 0
GAMMA = 2.5  # largest gamma of low light
JPEG_QUALITY = (15, 90)
MAX_BLUR = 0.02  # standard deviation, as a fraction of the side


class Augmentation:
    """Augment each image and label map of a batch independently.

    Args:
        degrees: maximum rotation in either direction.
        scale: maximum scale factor in either direction, at least 1; or a log-uniform range [smallest,
            largest] of the size of a face relative to the original, such as [0.25, 2].
        shift: maximum shift relative to the side.
        color: maximum relative change of brightness, contrast and saturation.
        blur, jpeg, grayscale, low_light: probabilities of Gaussian blur, JPEG compression, conversion to
            gray, and darkening with noise.
        paste: probability of filling the area outside the image with another image of the batch, enlarged and
            with its faces unlabeled, instead of replicating the border.

    Raises:
        ValueError: a negative number, `scale` below 1, or a probability above 1.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        scale: float | Sequence[float] = 1.0,
        shift: float = 0.0,
        color: float = 0.0,
        blur: float = 0.0,
        jpeg: float = 0.0,
        grayscale: float = 0.0,
        low_light: float = 0.0,
        paste: float = 0.0,
    ) -> None:
        smallest, largest = (1 / scale, scale) if isinstance(scale, int | float) else scale
        if min(degrees, shift, color) < 0 or not 0 < smallest <= largest:
            raise ValueError(
                f"augmentation: degrees, shift and color must be at least 0 and scale at least 1 or [smallest, "
                f"largest], got degrees {degrees}, shift {shift}, color {color}, scale {scale}"
            )
        for name, share in {
            "blur": blur,
            "jpeg": jpeg,
            "grayscale": grayscale,
            "low_light": low_light,
            "paste": paste,
        }.items():
            if not 0 <= share <= 1:
                raise ValueError(f"augmentation: {name} must be a probability in [0, 1], got {share}")
        self.degrees, self.shift, self.color = degrees, shift, color
        self.log_scale = math.log(smallest), math.log(largest)
        self.blur, self.jpeg, self.grayscale, self.low_light, self.paste = (
            blur,
            jpeg,
            grayscale,
            low_light,
            paste,
        )

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augment image (B, 3, H, W) in [-1, 1] and labels (B, H, W), uint8; the area outside is unlabeled."""
        moved, shifted, inside = self._moved(image, labels)
        if self.paste:
            moved, shifted = self._pasted(image, labels, moved, shifted, inside)
        return self._degraded(self._recolored(moved)), shifted

    def _moved(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Apply random similarity transforms; return images, labels and the mask of pixels inside the image."""
        maps = self._transforms(image)
        where = F.affine_grid(to_device(maps, image.device), list(image.shape), align_corners=False)
        moved = F.grid_sample(_antialiased(image, maps), where, padding_mode="border", align_corners=False)
        # Label + 1 distinguishes the zero padding from region 0.
        shifted = F.grid_sample(labels[:, None].float() + 1, where, mode="nearest", align_corners=False)
        numbers = shifted[:, 0].round().long() - 1  # (B, H, W)
        inside = numbers >= 0
        return moved, torch.where(inside, numbers, UNLABELED).to(labels.dtype), inside

    def _pasted(
        self, image: Tensor, labels: Tensor, moved: Tensor, shifted: Tensor, inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill the outside with other images of the batch, enlarged, labelling only their background."""
        B, _, H, W = image.shape
        zoom = torch.exp(_uniform(B, math.log(0.25), 0.0, image))  # side of the window that fills the image
        x, y = (_uniform(B, -1, 1, image) * (1 - zoom) for _ in range(2))
        zero = torch.zeros_like(zoom)
        maps = torch.stack([torch.stack([zoom, zero, x], 1), torch.stack([zero, zoom, y], 1)], 1)  # (B, 2, 3)
        where = F.affine_grid(maps, [B, 3, H, W], align_corners=False)
        other = F.grid_sample(image.roll(1, 0), where, padding_mode="border", align_corners=False)
        theirs = labels.roll(1, 0)[:, None].float()
        theirs = F.grid_sample(theirs, where, mode="nearest", padding_mode="border", align_corners=False)
        theirs = torch.where(theirs[:, 0] == BACKGROUND, BACKGROUND, UNLABELED).to(labels.dtype)
        filled = (torch.rand(B, device=image.device) < self.paste)[:, None, None] & ~inside  # (B, H, W)
        return torch.where(filled[:, None], other, moved), torch.where(filled, theirs, shifted)

    def _transforms(self, image: Tensor) -> Tensor:
        """Return affine maps (B, 2, 3) from output to input coordinates, on the CPU, where reading them is free."""
        B, _, H, W = image.shape
        host = image.new_empty(0, device="cpu")
        angle = _uniform(B, -self.degrees, self.degrees, host) * math.pi / 180
        factor = torch.exp(-_uniform(B, *self.log_scale, host))
        x, y = (_uniform(B, -self.shift, self.shift, host) * 2 * factor for _ in range(2))
        cos, sin = factor * angle.cos(), factor * angle.sin()
        rows = [torch.stack([cos, -sin * H / W, x], 1), torch.stack([sin * W / H, cos, y], 1)]
        return torch.stack(rows, 1)

    def _recolored(self, image: Tensor) -> Tensor:
        brightness, contrast, saturation = (
            1 + _uniform(len(image), -self.color, self.color, image)[:, None, None, None] for _ in range(3)
        )
        grayscale = torch.rand(len(image), 1, 1, 1, device=image.device) < self.grayscale
        light = (image + 1) * brightness / 2
        mean = light.mean((1, 2, 3), keepdim=True)
        light = mean + (light - mean) * contrast
        mono = light.mean(1, keepdim=True)
        return (mono + (light - mono) * torch.where(grayscale, 0.0, saturation)).clamp(0, 1) * 2 - 1

    def _degraded(self, image: Tensor) -> Tensor:
        """Randomly blur, darken and compress images (B, 3, H, W) in [-1, 1]."""
        if not (self.blur or self.low_light or self.jpeg):
            return image
        samples = torch.rand(len(image), 3).tolist()
        rows, qualities = [], {}
        for i, (one, (blur, dark, jpeg)) in enumerate(zip(image, samples, strict=True)):
            one = _blurred(one) if blur < self.blur else one
            rows.append(_darkened(one) if dark < self.low_light else one)
            if jpeg < self.jpeg:
                low, high = JPEG_QUALITY
                (qualities[i],) = torch.randint(low, high + 1, (1,)).tolist()
        if qualities:
            compressed = _compressed(torch.stack([rows[i] for i in qualities]), list(qualities.values()))
            for i, one in zip(qualities, compressed, strict=True):
                rows[i] = one
        return torch.stack(rows)


def _antialiased(image: Tensor, maps: Tensor) -> Tensor:
    """Average-pool images that the transform shrinks, to avoid aliasing in grid sampling; maps on the CPU."""
    factors = (maps[:, 0, 0].square() + maps[:, 1, 0].square()).sqrt()  # input pixels per output pixel
    rows = []
    for one, factor in zip(image, factors.tolist(), strict=True):
        kernel = max(1, 2 * round((factor - 1) / 2) + 1) if factor > 1 else 1
        rows.append(
            one if kernel == 1 else F.avg_pool2d(one, kernel, 1, kernel // 2, count_include_pad=False)
        )
    return torch.stack(rows)


def _blurred(image: Tensor) -> Tensor:
    """Blur an image (3, H, W) with a Gaussian of random width."""
    sigma = _random() * MAX_BLUR * image.shape[-1] + 0.3
    reach = math.ceil(2.5 * sigma)
    taps = torch.exp(-torch.arange(-reach, reach + 1, dtype=image.dtype).square() / (2 * sigma**2))
    taps = to_device(taps / taps.sum(), image.device).expand(3, 1, -1)
    padded = F.pad(image[None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, taps[:, :, None], groups=3), taps[..., None], groups=3)[0]


def _darkened(image: Tensor) -> Tensor:
    """Simulate low light on an image (3, H, W): gamma and sensor noise."""
    gamma = 1 + _random() * (GAMMA - 1)
    light = ((image + 1) / 2).clamp(0, 1) ** gamma
    noise = _random() * 0.06 * torch.randn_like(light)
    return (light + noise).clamp(0, 1) * 2 - 1


def _compressed(images: Tensor, qualities: Sequence[int]) -> Tensor:
    """Compress images (N, 3, H, W) as JPEG.

    The encoder needs them on the host, which waits for a GPU once per batch.
    """
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    decoded = []
    for one, quality in zip(pixels, qualities, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "JPEG", quality=quality)
        decoded.append(torch.from_numpy(np.array(Image.open(buffer).convert("RGB"))))
    back = to_device(torch.stack(decoded), images.device)  # (N, H, W, 3), uint8
    return back.permute(0, 3, 1, 2).to(images.dtype) / 127.5 - 1


def _random() -> float:
    """Sample a uniform number in [0, 1) on the host."""
    return torch.rand(1).tolist()[0]


def _uniform(count: int, low: float, high: float, like: Tensor) -> Tensor:
    """Sample `count` uniform numbers in [low, high]."""
    return low + torch.rand(count, device=like.device, dtype=like.dtype) * (high - low)
