"""LPIPS (arXiv 1801.03924) with AlexNet or VGG16 features, without torchvision."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.state_dict import load_weights
from ldm.modules.layers import full_precision

# Stages of torchvision's networks, with each layer's index in `features`: (number, in, out, kernel, stride,
# padding) of a convolution and its ReLU, or (number, kernel) of a max pooling with stride 2.
Layer = tuple[int, int, int, int, int, int] | tuple[int, int]
ALEXNET: list[list[Layer]] = [
    [(0, 3, 64, 11, 4, 2)],
    [(2, 3), (3, 64, 192, 5, 1, 2)],
    [(5, 3), (6, 192, 384, 3, 1, 1)],
    [(8, 384, 256, 3, 1, 1)],
    [(10, 256, 256, 3, 1, 1)],
]
VGG16: list[list[Layer]] = [
    [(0, 3, 64, 3, 1, 1), (2, 64, 64, 3, 1, 1)],
    [(4, 2), (5, 64, 128, 3, 1, 1), (7, 128, 128, 3, 1, 1)],
    [(9, 2), (10, 128, 256, 3, 1, 1), (12, 256, 256, 3, 1, 1), (14, 256, 256, 3, 1, 1)],
    [(16, 2), (17, 256, 512, 3, 1, 1), (19, 512, 512, 3, 1, 1), (21, 512, 512, 3, 1, 1)],
    [(23, 2), (24, 512, 512, 3, 1, 1), (26, 512, 512, 3, 1, 1), (28, 512, 512, 3, 1, 1)],
]
NETWORKS = {"alex": ALEXNET, "vgg": VGG16}  # the authors' names
# ImageNet mean and standard deviation for images in [-1, 1], as in the authors' code.
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Feature network and channel weights. Keys match torchvision; `heads.N` holds the channel weights.

    Args:
        kind: "alex", recommended by the authors for evaluation, or "vgg", for training.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.stages = kind, NETWORKS[kind]
        convolutions = [layer for stage in self.stages for layer in stage if len(layer) == 6]
        self.features = nn.ModuleDict(
            {
                str(n): nn.Conv2d(a, b, kernel, stride, padding)
                for n, a, b, kernel, stride, padding in convolutions
            }
        )
        last = [layer[2] for stage in self.stages for layer in stage[-1:] if len(layer) == 6]
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(channels)) for channels in last])
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def forward(self, images: Tensor, references: Tensor) -> Tensor:
        """Return the distance map (B, H, W) of images (B, 3, H, W) in [-1, 1]; its mean is LPIPS."""
        return self.between(self.stages_of(images), self.stages_of(references), images.shape[-2:])

    def between(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """Return the distance map (B, H, W) of two sets of features from `stages_of` (equation 1)."""
        total = first[0].new_zeros(len(first[0]), 1, *size)
        for head, x, y in zip(self.heads, first, second, strict=True):
            with torch.autocast(x.device.type, enabled=False):  # half precision would round small differences
                weighted = torch.einsum("bchw,c->bhw", (x - y).square(), head)[:, None]
            total = total + _spread(weighted, size)
        return total[:, 0]

    def stages_of(self, images: Tensor) -> list[Tensor]:
        """Return the features of each stage, (B, C, h, w), normalized to unit length at each pixel."""
        x, found = (images - self.mean) / self.deviation, []
        for stage in self.stages:
            for layer in stage:
                x = (
                    F.max_pool2d(x, layer[1], 2)
                    if len(layer) == 2
                    else F.relu(self.features[str(layer[0])](x))
                )
            features = full_precision(x)
            found.append(features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def load_lpips(path: Path) -> LPIPS:
    """Load torchvision's AlexNet or VGG16 (alexnet-owt-7be5be79.pth, vgg16-397923af.pth) as LPIPS.

    The learned channel weights come with the torchmetrics library.

    Raises:
        CheckpointError: a damaged file, or another network.
    """
    given = read_checkpoint(path).state_dict
    kind = "alex" if given.get("features.0.weight", torch.empty(0)).shape[-1:] == (11,) else "vgg"
    heads = read_checkpoint(_heads(kind)).state_dict
    network = LPIPS(kind)
    try:
        load_weights(network, _renamed(given, heads), ignore_prefixes=("classifier.",))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: neither torchvision's AlexNet nor its VGG16 ({error})") from error
    return network.eval().requires_grad_(False)


def _heads(kind: str) -> Path:
    return Path(str(files("torchmetrics.functional.image"))) / "lpips_models" / f"{kind}.pth"


def _renamed(network: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**network, **{f"heads.{key[3]}": value.flatten() for key, value in heads.items()}}


def _spread(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Upsample (B, 1, h, w) to `size` without changing its mean."""
    large = F.interpolate(values, size=size, mode="bilinear", align_corners=False)
    # Bilinear upsampling by a non-integer factor shifts the mean slightly.
    return large + (values.mean((2, 3), keepdim=True) - large.mean((2, 3), keepdim=True))
