"""FaceParser: segments photos into label maps, with a network of this project or one in transformers' format."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoints.config_files import parse_json
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.hf_transformers import load_transformer
from ldm.checkpoints.io import build_model
from ldm.checkpoints.locate import FACE_PARSER, find_model, usable_device
from ldm.data.labels import CELEBAMASK_HQ, UNLABELED, LabelSet
from ldm.parsing.class_check import check_classes, reference_face

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of pixels in 0..1
# Names of CelebAMask-HQ's regions in other projects, compared by their words in lower case.
ALIASES = {
    "bg": "background",
    "face": "skin",
    "glasses": "eye_g",
    "eyeglass": "eye_g",
    "eyeglasses": "eye_g",
    "eye_glasses": "eye_g",
    "le": "l_eye",
    "re": "r_eye",
    "lb": "l_brow",
    "rb": "r_brow",
    "left_eye": "l_eye",
    "right_eye": "r_eye",
    "left_brow": "l_brow",
    "right_brow": "r_brow",
    "left_eyebrow": "l_brow",
    "right_eyebrow": "r_brow",
    "left_ear": "l_ear",
    "right_ear": "r_ear",
    "inner_mouth": "mouth",
    "imouth": "mouth",
    "teeth": "mouth",
    "upper_lip": "u_lip",
    "ulip": "u_lip",
    "lower_lip": "l_lip",
    "llip": "l_lip",
    "earring": "ear_r",
    "earrings": "ear_r",
    "necklace": "neck_l",
    "clothes": "cloth",
    "clothing": "cloth",
}


class FaceParser:
    """Segments photos into regions.

    Attributes:
        label_set: names of the labels in its label maps.
        missing: regions that the network cannot find.
    """

    def __init__(
        self,
        network: nn.Module,
        regions: Sequence[str],
        size: tuple[int, int],
        normalize: tuple[Sequence[float], Sequence[float]],
        label_set: LabelSet = CELEBAMASK_HQ,
    ) -> None:
        """Take a network in evaluation mode, image (B, 3, H, W) to logits (B, classes, H/n, W/n).

        Args:
            network: the network.
            regions: name of each class, in the network's order.
            size: the (H, W) it was trained at; photos are resized to it.
            normalize: mean and standard deviation of its input, for pixels in [0, 1].
            label_set: labels to which the classes are mapped, by name.

        Raises:
            CheckpointError: a class that `label_set` does not have.
        """
        self.network, self.size, self.label_set = network, size, label_set
        self._to_label = torch.tensor(_translated(regions, label_set))
        self.missing = [name for i, name in enumerate(label_set.regions) if i not in self._to_label]
        mean, deviation = (torch.tensor(part).float().view(3, 1, 1) for part in normalize)
        self._mean, self._deviation = mean, deviation

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = FACE_PARSER,
        *,
        device: str | torch.device | None = None,
        label_set: LabelSet = CELEBAMASK_HQ,
    ) -> FaceParser:
        """Load a face parser; without a path the one in the repository, `checkpoints/faces/parser`.

        Args:
            path: A run folder of main.py, a folder of `scripts/export_model.py`, or a network in
                transformers' format: a folder, or owner/name on the hub.
            device: "cpu", "cuda", "mps"; by default the fastest available.
            label_set: Names of the labels in the label maps.

        A network in transformers' format is checked on a reference face with a known label map: left and
        right are swapped, with a warning, where its class names have them the other way round.

        Raises:
            CheckpointError: not a face parser, or its class names are not those of `label_set` or of other
                regions.
        """
        place = usable_device(device)
        folder = Path(path)
        if (folder / "config.json").is_file() or not folder.exists():
            network, regions, size, normalize = _from_transformers(path, place)
            parser = cls(network, regions, size, normalize, label_set)
            if label_set == CELEBAMASK_HQ:
                parser._check_classes(str(path))
            return parser
        checkpoint, config = find_model(path)
        model: Any = build_model(config, checkpoint, weights="raw")
        from ldm.models.segmenter import Segmenter

        if not isinstance(model, Segmenter):
            raise CheckpointError(f"{checkpoint.path}: expected a face parser, got a {type(model).__name__}")
        # Our networks take pixels in [-1, 1].
        return cls(
            model.to(place),
            model.label_set.regions,
            model.input_size or _trained_size(config),
            ((0.5,) * 3, (0.5,) * 3),
            label_set,
        )

    def _check_classes(self, name: str) -> None:
        """Correct swapped sides; raise CheckpointError if a class segments another region than its name says."""
        image, truth = reference_face()
        swapped = check_classes(self.parse(image), truth, name)
        before = self._to_label.clone()
        for pair in swapped:
            left, right = self.label_set.indices(pair)
            self._to_label[before == left], self._to_label[before == right] = right, left
        if swapped:
            listed = ", ".join(f"{left} and {right}" for left, right in swapped)
            warnings.warn(f"{name}: its class names have {listed} swapped; corrected", stacklevel=3)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    @torch.no_grad()
    def parse(self, image: Tensor) -> Tensor:
        """Return the label map, uint8 (H, W), of a photo (3, H, W) in [-1, 1], or (B, H, W) of a batch (B, 3, H, W).

        Raises:
            ValueError: an unexpected shape, or non-finite values.
        """
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.isfinite().all():
            raise ValueError(
                "expected a photo (3, H, W) or (B, 3, H, W) of finite values in [-1, 1], got a tensor "
                f"{tuple(image.shape)}"
            )
        batch = image if image.ndim == 4 else image[None]
        logits = self.network(self._pixels(batch))
        logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        labels = self._to_label.to(self.device)[logits.argmax(1)].to(torch.uint8).to(image.device)
        return labels if image.ndim == 4 else labels[0]

    @property
    def has_features(self) -> bool:
        """Whether `features` works: for our networks, and SegFormers of the transformers library."""
        from ldm.models.segmenter import EfficientFaceParser

        if isinstance(self.network, EfficientFaceParser):
            return True
        from transformers import SegformerForSemanticSegmentation

        return isinstance(self.network.network, SegformerForSemanticSegmentation)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the encoder's last features, averaged over positions, (B, D), of images (B, 3, H, W) in [-1, 1]."""
        segmenter: Any = self.network.network
        if hasattr(segmenter, "encoder"):
            return segmenter.encoder(self._pixels(images))[-1].mean((2, 3))
        return segmenter.base_model(pixel_values=self._pixels(images)).last_hidden_state.mean((2, 3))

    def _pixels(self, images: Tensor) -> Tensor:
        """Return the input of the network."""
        small = F.interpolate(
            images.float().to(self.device),
            size=self.size,
            mode="bicubic",
            antialias=True,
            align_corners=False,
        )
        return ((small.clamp(-1, 1) + 1) / 2 - self._mean.to(small)) / self._deviation.to(small)


class _Logits(nn.Module):
    """Network of transformers that returns only its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixel_values=pixels).logits


def _from_transformers(path: str | Path, device: torch.device) -> tuple[Any, ...]:
    """Return the network, its classes in order, its size and its normalization."""
    problem = "neither a run folder of main.py nor a segmentation network in transformers' format"
    network = load_transformer("AutoModelForSemanticSegmentation", path, problem)
    names = network.config.id2label
    regions = [names[i] for i in range(len(names))]
    size, normalize = _preprocessing(path)
    return _Logits(network).to(device), regions, size, normalize


def _preprocessing(path: str | Path) -> tuple[tuple[int, int], tuple[Sequence[float], Sequence[float]]]:
    """Return size and normalization from preprocessor_config.json; SegFormer's defaults without it."""
    from transformers.utils import cached_file

    try:
        file = cached_file(str(path), "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    except OSError:
        file = None
    settings: Mapping[str, Any] = parse_json(Path(file).read_text()) if file else {}
    size = settings.get("size", 512)
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if "height" in size else next(iter(size.values()))
    mean, deviation = settings.get("image_mean", IMAGENET[0]), settings.get("image_std", IMAGENET[1])
    return ((size, size) if isinstance(size, int) else (size[0], size[1])), (mean, deviation)


def _translated(regions: Sequence[str], label_set: LabelSet) -> list[int]:
    """Return the label of each class, found by its name: three orders of the same 19 classes circulate.

    Raises:
        CheckpointError: a name that `label_set` does not have.
    """
    known = {_words(name): i for i, name in enumerate(label_set.regions)}
    found = {
        name: known.get(_words(name), known.get(_words(ALIASES.get(_words(name), "")))) for name in regions
    }
    unknown = [name for name, label in found.items() if label is None]
    if unknown:
        raise CheckpointError(
            f"the parser's classes {', '.join(map(repr, unknown[:8]))} are not among those of "
            f"{label_set.name}: {', '.join(label_set.regions)}; rename them under id2label in its config.json"
        )
    return [UNLABELED if (label := found[name]) is None else label for name in regions]


def _words(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().lower())


def _trained_size(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the (H, W) of a run's training data; of several datasets, the first one's."""
    try:
        params = config["data"]["params"]["train"]["params"]
        size = (params["datasets"][0]["params"] if "datasets" in params else params)["size"]
    except (KeyError, TypeError, IndexError) as error:
        raise CheckpointError("the parser's config does not say the size of its training data") from error
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
