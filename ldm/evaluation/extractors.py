"""Feature extractors for distances between sets of images, with a cache of the features of datasets."""

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
)  # OpenAI's mean and standard deviation
BATCH = 32


@dataclass(frozen=True)
class Extractor:
    """Feature extractor.

    Attributes:
        name: name in the report.
        features: function from images (B, 3, H, W) in [-1, 1] to features (B, D).
        fingerprint: fingerprint of the weights.
    """

    name: str
    features: Callable[[Tensor], Tensor]
    fingerprint: str

    @torch.no_grad()
    def extract(self, images: Iterable[Tensor]) -> Tensor:
        """Return the features (N, D), float32 on the CPU, of images (3, H, W), which are read one by one."""
        features: list[Tensor] = []
        waiting: list[Tensor] = []
        for image in images:
            waiting.append(image)
            if len(waiting) == BATCH:
                features.append(self.features(torch.stack(waiting)).float().cpu())  # (B, D)
                waiting.clear()
        if waiting:
            features.append(self.features(torch.stack(waiting)).float().cpu())
        return torch.cat(features) if features else torch.empty(0, 0)

    def extract_cached(self, images: Callable[[], Iterable[Tensor]], folder: Path) -> Tensor:
        """Return the features of a dataset; cached in `folder` by the content of the images.

        Args:
            images: returns an iterator over the images (3, H, W); called twice, so that they are never all in
                memory: for the content, then for the features.
            folder: folder of the cache.
        """
        digest = hashlib.sha256(f"{self.name} {self.fingerprint}".encode())
        for image in images():
            digest.update(to_uint8(image).tobytes() + str(tuple(image.shape)).encode())
        file = folder / f"{self.name}_{digest.hexdigest()[:24]}.safetensors"
        if file.is_file():
            try:
                return load_file(file)["features"]
            except (safetensors.SafetensorError, KeyError, OSError):
                file.unlink(missing_ok=True)  # damaged: compute it again
        features = self.extract(images())
        write_file(file, lambda target: target.write(save({"features": features.contiguous()})))
        return features


def cache_folder() -> Path:
    """Return the folder of cached features: $XDG_CACHE_HOME/sca-dm, or ~/.cache/sca-dm."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sca-dm"


def resized(images: Tensor, side: int) -> Tensor:
    """Resize images (B, 3, H, W) in floating point, bicubic and antialiased, as Pillow does (arXiv 2104.11222)."""
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def inception(path: str, device: torch.device) -> Extractor:
    """Load Inception (2048 features) from the TorchScript file of StyleGAN and clean-fid.

    Raises:
        CheckpointError: the file is missing or is another network.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # of torch.jit.load; the network is published in this format only
            network: Any = torch.jit.load(path, map_location=device).eval()
        layers = network.layers
    except (OSError, RuntimeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: expected inception-2015-12-05.pt, the TorchScript file of StyleGAN's metrics "
            f"({str(error).splitlines()[0]})"
        ) from error

    def features(images: Tensor) -> Tensor:
        pixels = ((resized(images.to(device), 299) + 1) * 127.5).clamp(0, 255)  # (B, 3, 299, 299)
        return layers((pixels - 128) / 128).flatten(1)  # (B, 2048)

    return Extractor("inception", features, fingerprint(network))


def dinov2(path: str, device: torch.device) -> Extractor:
    """Load DINOv2; the features are its class token at 224x224 (FD-DINOv2, arXiv 2306.04675).

    Raises:
        CheckpointError: `path` is not a DINOv2 in transformers' format.
    """
    network = load_transformer("Dinov2Model", path, "expected a Dinov2Model in transformers' format").to(
        device
    )

    def features(images: Tensor) -> Tensor:
        pixels = _normalized(images.to(device), 224, IMAGENET)  # (B, 3, 224, 224)
        return network(pixel_values=pixels).pooler_output  # (B, D)

    return Extractor("dinov2", features, fingerprint(network))


def clip(path: str, device: torch.device) -> Extractor:
    """Load CLIP; the features are its image embeddings, normalized to length 1 (CMMD, arXiv 2401.09603).

    Raises:
        CheckpointError: `path` is not a CLIP image encoder in transformers' format.
    """
    network = load_transformer(
        "CLIPVisionModelWithProjection",
        path,
        "expected a CLIPVisionModelWithProjection in transformers' format",
    ).to(device)

    def features(images: Tensor) -> Tensor:
        pixels = _normalized(images.to(device), network.config.image_size, CLIP)  # (B, 3, S, S)
        return F.normalize(network(pixel_values=pixels).image_embeds, dim=-1)  # (B, D)

    return Extractor("clip", features, fingerprint(network))


def efficientnet(path: str, device: torch.device) -> Extractor:
    """Load EfficientNet-Lite0; the features are the mean of its last feature map at 224x224 (320 features).

    Not a standard metric network: values are comparable only with others of this network. It is trained on
    ImageNet and available as a package.
    """
    network = load_imagenet(path).eval().requires_grad_(False).to(device)

    def features(images: Tensor) -> Tensor:
        return network(resized(images.to(device), 224).clamp(-1, 1))[-1].mean((2, 3))  # (B, 320)

    return Extractor("efficientnet", features, fingerprint(network))


def parser_features(parser: FaceParser) -> Extractor:
    """Return the mean of a face parser's last feature map; comparable only with values of the same parser."""
    return Extractor("parser", parser.features, fingerprint(parser.network))


def _normalized(images: Tensor, side: int, statistics: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    mean, deviation = (images.new_tensor(part)[:, None, None] for part in statistics)
    return ((resized(images, side).clamp(-1, 1) + 1) / 2 - mean) / deviation
