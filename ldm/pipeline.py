"""FacePipeline: load weights, read styles, edit them, make images. What scripts call."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ldm.checkpoint import CheckpointError, build_model, has_ema, read_checkpoint
from ldm.data.labels import CELEBAMASK_HQ, CITYSCAPES_TRAIN, LABEL_SETS, LabelSet, one_hot
from ldm.models.diffusion import Condition, LatentDiffusion
from ldm.sampling import guide, sample
from ldm.sampling.noise import draw, seeded
from ldm.sampling.schedule import Spacing

Weights = Literal["ema", "raw"]
Progress = Callable[[int, int], None]  # solver steps done, solver steps in all


class FacePipeline:
    """A trained model and what one does with it.

    Images are (B, 3, H, W) in [-1, 1], label maps (B, H, W) of integers, styles (B, R, D).
    """

    def __init__(self, model: LatentDiffusion, label_set: LabelSet, size: tuple[int, int]) -> None:
        """Take a model in evaluation mode, the meaning of its regions, and the (H, W) it was trained at."""
        self.model = model
        self.label_set = label_set
        self.size = size

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        config: str | Path | Mapping[str, Any] | None = None,
        weights: Weights | None = None,
        device: str | torch.device | None = None,
    ) -> "FacePipeline":
        """Load a model.

        Args:
            path: a run folder, a folder with model.safetensors and config.yaml, or a weight file (.ckpt, .safetensors).
            config: the YAML that builds the model, for weight files that come without one.
            weights: "ema" for the UNet's moving averages, "raw" for its last weights; None for ema where there is.
            device: "cpu", "cuda", "mps"; by default the fastest there is.

        Raises:
            CheckpointError: no weights, no config, or the two do not fit.
        """
        place = usable_device(device)
        file = _weight_file(Path(path))
        checkpoint = read_checkpoint(file)
        found = _read_config(config) if config is not None else checkpoint.config or _config_near(file)
        if weights is None:
            weights = "ema" if has_ema(checkpoint.state_dict) else "raw"
        model = build_model(found, checkpoint, weights=weights)
        if not isinstance(model, LatentDiffusion):
            raise CheckpointError(
                f"{file}: holds a {type(model).__name__}; wanted the weights of a LatentDiffusion"
            )
        size = _trained_size(found, model)
        return cls(model.to(place), _label_set(found, model), size)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def indices(self, regions: Iterable[str]) -> list[int]:
        """Return the numbers of regions by name; an unknown name raises ValueError with the nearest ones."""
        return self.label_set.indices(regions)

    @torch.no_grad()
    def read_style(self, image: Tensor, labels: Tensor) -> Tensor:
        """Return the style codes (B, R, D) of photos with their label maps."""
        return self.model.get_learned_conditioning(image.to(self.device), self._mask(labels))

    def random_style(self, labels: Tensor) -> Tensor:
        """Return the codes of an empty image (B, R, D): with them noise decides the style."""
        return self.read_style(torch.zeros(len(labels), 3, *labels.shape[-2:]), labels)

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """Return what the first stage alone makes of an image: the best that any sample can be."""
        z = self.model.encode_first_stage(image.to(self.device))
        return self.model.decode_first_stage(z).clamp(-1, 1)

    @torch.no_grad()
    def __call__(
        self,
        labels: Tensor,
        style: Tensor,
        *,
        seeds: Sequence[int],
        steps: int = 50,
        solver: str = "ddim",
        eta: float = 0.0,
        spacing: Spacing = "uniform",
        guidance: float = 1.0,
        progress: Progress | None = None,
    ) -> Tensor:
        """Make images.

        Args:
            labels: the shapes, (B, H, W).
            style: the styles, (B, R, D).
            seeds: one per image; the image of a seed does not depend on the others.
            steps, solver, eta, spacing: see `ldm.sampling.sample`.
            guidance: 1 for none; more pulls away from the empty image's style.
            progress: called with the steps done and the steps in all.

        Returns:
            (B, 3, H, W) in [-1, 1], on the model's device.
        """
        if not len(labels) == len(style) == len(seeds):
            raise ValueError(
                f"{len(labels)} label maps, {len(style)} styles and {len(seeds)} seeds; wanted as many of each"
            )
        factor = self.model.first_stage_model.factor
        if labels.shape[-2] % factor or labels.shape[-1] % factor:
            raise ValueError(f"label maps of {tuple(labels.shape[-2:])}; wanted multiples of {factor} pixels")
        h, w = labels.shape[-2] // factor, labels.shape[-1] // factor
        cond: Condition = {"context": style.to(self.device), "y": self._mask(labels)}
        ready = self.model.prepare(cond, (h, w))
        null = ready
        if guidance != 1:
            null = self.model.prepare({**cond, "context": self.random_style(labels)}, (h, w))
        generators = seeded(seeds)
        noise = draw((len(seeds), self.model.channels, h, w), generators, self.device)
        z = sample(
            guide(self.model.apply_model, ready, null, guidance),
            noise,
            self.model.schedule,
            steps=steps,
            solver=solver,
            eta=eta,
            spacing=spacing,
            generator=generators,
            progress=progress,
        )
        return self.model.decode_first_stage(z).clamp(-1, 1)

    def _mask(self, labels: Tensor) -> Tensor:
        return one_hot(labels.to(self.device), self.model.num_regions)


def swap(style: Tensor, other: Tensor, regions: Sequence[int] | None = None) -> Tensor:
    """Return `style` (B, R, D) with the rows of `regions` (all, by default) taken from `other`."""
    if regions is None:
        return other.clone()
    mixed = style.clone()
    mixed[:, list(regions)] = other[:, list(regions)]
    return mixed


def interpolate(style: Tensor, other: Tensor, amount: float, regions: Sequence[int] | None = None) -> Tensor:
    """Return `style` (B, R, D) moved towards `other` by `amount`, 0..1, in `regions` (all, by default)."""
    return swap(style, torch.lerp(style, other, amount), regions)


def psnr(image: Tensor, reference: Tensor) -> list[float]:
    """Return the peak signal-to-noise ratio of each image (B, 3, H, W) in [-1, 1], in dB; infinite if equal."""
    error = ((image - reference.to(image.device)) / 2).square().flatten(1).mean(1).cpu().double()
    return [-10 * math.log10(e) if e > 0 else math.inf for e in error.tolist()]


def usable_device(wanted: str | torch.device | None = None) -> torch.device:
    """Return the device that is asked for; without one CUDA where there is it, else Apple's MPS, else the CPU.

    Raises:
        ValueError: torch cannot use it here.
    """
    if wanted is not None:
        try:
            return torch.empty(0, device=wanted).device
        except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device {str(wanted)!r} cannot be used here: {reason}; try cpu, or leave it out"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _weight_file(path: Path) -> Path:
    """Return the weights of a run folder, or `path` itself."""
    last = path / "checkpoints" / "last.ckpt"
    return last if last.is_file() else path


def _config_near(file: Path) -> dict[str, Any]:
    """Return the config of the run that a checkpoint belongs to."""
    run_config = file.parent.parent / "config.yaml"
    if file.parent.name == "checkpoints" and run_config.is_file():
        return _read_config(run_config)
    raise CheckpointError(
        f"{file}: no config beside it; name the YAML that the model was trained with "
        "(for published weights configs/latent-diffusion/celebamask-hq.yaml) by --config, or config= in Python"
    )


def _read_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return {str(key): value for key, value in config.items()}
    if not Path(config).is_file():
        raise CheckpointError(f"{config}: there is no such config")
    read = OmegaConf.load(config)
    # Only the model is built from it; a `???` elsewhere is no concern.
    return {
        str(key): OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in read.items()
    }


def _label_set(config: Mapping[str, Any], model: LatentDiffusion) -> LabelSet:
    """Return the label set of the training data, or else one with as many regions as the model knows."""
    train = _training_data(config)
    if (train.get("params") or {}).get("train_ids") and model.num_regions == len(CITYSCAPES_TRAIN):
        return CITYSCAPES_TRAIN  # CelebAMask-HQ has as many regions
    for label_set in LABEL_SETS.values():
        if len(label_set) == model.num_regions:
            return label_set
    R = model.num_regions
    names = tuple(f"region_{i}" for i in range(R))
    colours = (CELEBAMASK_HQ.palette * R)[:R]
    return LabelSet(f"{R} regions", names, colours, tuple(range(R)))


def _training_data(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `{target, params}` of the training set, empty where the config does not say."""
    data: Any = config.get("data") or {}
    return (data.get("params") or {}).get("train") or {}


def _trained_size(config: Mapping[str, Any], model: LatentDiffusion) -> tuple[int, int]:
    """Return the (H, W) of the training data, or the model's own where the config does not say."""
    train = _training_data(config)
    size = (train.get("params") or {}).get("size", model.image_size * model.first_stage_model.factor)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
