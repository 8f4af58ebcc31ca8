"""Networks that turn pictures into features (N, D), for distances between sets of pictures; and their cache."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor

from ldm.atomic_files import write_file
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.fingerprint import fingerprint
from ldm.checkpoints.hf_transformers import load_transformer
from ldm.data.images import to_uint8
from ldm.modules.efficientnet import load_imagenet
from ldm.parsing.face_parser import IMAGENET, FaceParser

CLIP = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # OpenAI's mean and deviation
BATCH = 32


@dataclass(frozen=True)
class Extractor:
    """Turns pictures (B, 3, H, W) in [-1, 1] into features (B, D).

    Attributes:
        name: as the report shows it.
        features: the function.
        fingerprint: of its weights.
    """

    name: str
    features: Callable[[Tensor], Tensor]
    fingerprint: str

    @torch.no_grad()
    def of(self, pictures: Iterable[Tensor]) -> Tensor:
        """Return the features (N, D), float32 on the CPU, of pictures (3, H, W) that come one by one."""
        found: list[Tensor] = []
        waiting: list[Tensor] = []
        for picture in pictures:
            waiting.append(picture)
            if len(waiting) == BATCH:
                found.append(self.features(torch.stack(waiting)).float().cpu())
                waiting.clear()
        if waiting:
            found.append(self.features(torch.stack(waiting)).float().cpu())
        return torch.cat(found) if found else torch.empty(0, 0)

    def of_data(self, pictures: Callable[[], Iterable[Tensor]], folder: Path) -> Tensor:
        """Return the same, kept in `folder` by the content of the pictures, for the next evaluation on this data.

        `pictures` begins anew at each call: one round for the content, one for the features, never all in memory.
        """
        digest = hashlib.sha256(f"{self.name} {self.fingerprint}".encode())
        for picture in pictures():
            digest.update(to_uint8(picture).tobytes() + str(tuple(picture.shape)).encode())
        file = folder / f"{self.name}_{digest.hexdigest()[:24]}.safetensors"
        if file.is_file():
            try:
                return load_file(file)["features"]
            except (safetensors.SafetensorError, KeyError, OSError):
                file.unlink(missing_ok=True)  # damaged: made anew
        features = self.of(pictures())
        write_file(file, lambda target: target.write(save({"features": features.contiguous()})))
        return features


def cache_folder() -> Path:
    """Return where features of data are kept: $XDG_CACHE_HOME/sca-dm, or ~/.cache/sca-dm."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sca-dm"


def resized(images: Tensor, side: int) -> Tensor:
    """Resize pictures (B, 3, H, W) as Pillow does in floating point, bicubic and antialiased (arXiv 2104.11222)."""
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def inception(path: str, device: torch.device) -> Extractor:
    """Return Inception's 2048 features, from the TorchScript file that StyleGAN and clean-fid use.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's; the file exists in no other form
            network: Any = torch.jit.load(path, map_location=device).eval()
        layers = network.layers
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: wanted inception-2015-12-05.pt, the TorchScript file of StyleGAN's metrics "
            f"({str(error).splitlines()[0]})"
        ) from error

    def features(images: Tensor) -> Tensor:
        bytes_ = ((resized(images.to(device), 299) + 1) * 127.5).clamp(0, 255)
        return layers((bytes_ - 128) / 128).flatten(1)

    return Extractor("inception", features, fingerprint(network))


def dinov2(path: str, device: torch.device) -> Extractor:
    """Return the class token of a DINOv2 at 224x224 (FD-DINOv2, arXiv 2306.04675)."""
    network = load_transformer("Dinov2Model", path, "wanted a Dinov2Model in transformers' format").to(device)

    def features(images: Tensor) -> Tensor:
        return network(pixel_values=_normalised(images.to(device), 224, IMAGENET)).pooler_output

    return Extractor("dinov2", features, fingerprint(network))


def clip(path: str, device: torch.device) -> Extractor:
    """Return CLIP's picture embeddings, of length 1 (CMMD, arXiv 2401.09603)."""
    network = load_transformer(
        "CLIPVisionModelWithProjection",
        path,
        "wanted a CLIPVisionModelWithProjection in transformers' format",
    ).to(device)

    def features(images: Tensor) -> Tensor:
        pixels = _normalised(images.to(device), network.config.image_size, CLIP)
        return F.normalize(network(pixel_values=pixels).image_embeds, dim=-1)

    return Extractor("clip", features, fingerprint(network))


def efficientnet(path: str, device: torch.device) -> Extractor:
    """Return the mean of EfficientNet-Lite0's last features at 224x224, 320 numbers.

    No standard, but ImageNet's, and to be had as a package: comparable only with itself.
    """
    network = load_imagenet(path).eval().requires_grad_(False).to(device)

    def features(images: Tensor) -> Tensor:
        return network(resized(images.to(device), 224).clamp(-1, 1))[-1].mean((2, 3))

    return Extractor("efficientnet", features, fingerprint(network))


def parser_features(parser: FaceParser) -> Extractor:
    """Return the mean of a face parser's last features: no standard, but of the domain, and made here."""
    return Extractor("parser", parser.features, fingerprint(parser.network))


def _normalised(images: Tensor, side: int, statistics: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    mean, deviation = (images.new_tensor(part)[:, None, None] for part in statistics)
    return ((resized(images, side).clamp(-1, 1) + 1) / 2 - mean) / deviation
