"""FacePipeline: read styles, edit them, make images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from ldm.checkpoints.fingerprint import fingerprint
from ldm.checkpoints.locate import usable_device
from ldm.data.labels import LabelSet
from ldm.pipeline.editing import area_of, soften
from ldm.pipeline.making import Described, Maker, Original
from ldm.pipeline.options import Progress, SamplingOptions, inverting, sampling
from ldm.pipeline.pretrained import Precision, Weights, compile_step, load_pretrained, working_dtype
from ldm.pipeline.style_code import StyleCode, check_encoder, load_style
from ldm.sampling.schedule import Spacing

if TYPE_CHECKING:
    from ldm.models.diffusion import LatentDiffusion

Styles = StyleCode | Sequence[StyleCode]


class FacePipeline:
    """A trained model and what one does with it.

    Images are (3, H, W) or (B, 3, H, W) in [-1, 1], label maps (H, W) or (B, H, W) of integers, styles a `StyleCode`
    or a list of B. What is one where the others are many is used for all of them; one of each gives one.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        label_set: LabelSet,
        size: tuple[int, int],
        precision: Precision = "float32",
    ) -> None:
        """Take a model in evaluation mode, the meaning of its regions, and the (H, W) it was trained at."""
        self.maker = Maker(model, label_set, working_dtype(precision, model.device))
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
        precision: Precision = "auto",
        compile: bool = False,
    ) -> FacePipeline:
        """Load a model.

        Args:
            path: a run folder, a folder with model.safetensors and config.yaml, a weight file (.ckpt, .safetensors),
                or, where huggingface_hub is installed, owner/name of such a folder on the hub.
            config: the YAML that builds the model, for weight files that come without one.
            weights: "ema" for the UNet's moving averages, "raw" for its last weights; None for ema where there is.
            device: "cpu", "cuda", "mps"; by default the fastest there is.
            precision: what the UNet and the decoder compute in, "float32", "bfloat16" or "float16"; "auto" is
                bfloat16 on CUDA devices that have it, else float32. Styles and inversions are always float32.
            compile: compile the UNet's step (torch.compile): minutes at the first image of each shape, and a C++
                compiler, for steps that may cost less. On CUDA each shape's step is then captured as a graph.

        Raises:
            CheckpointError: no weights, no config, the two do not fit, or weights that are not finite.
        """
        working_dtype(precision, usable_device(device))  # mistakes in their names before minutes of loading
        pipe = cls(*load_pretrained(path, config=config, weights=weights, device=device), precision)
        if compile:
            compile_step(pipe.model)
        return pipe

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @cached_property
    def encoder(self) -> str:
        """The style encoder's fingerprint: codes of one encoder mean nothing to another."""
        return fingerprint(self.model.cond_stage_model)

    @cached_property
    def name(self) -> str:
        """The whole model's fingerprint: the same pictures come from no other."""
        return fingerprint(self.model)

    # --- styles ---

    @torch.no_grad()
    def read_style(self, image: Tensor, labels: Tensor) -> Any:
        """Return the style of a photo with its label map: a StyleCode; a list of them if either is a batch.

        Raises:
            ValueError: sizes that differ, labels that the model does not know, an image that is not finite.
        """
        single = image.ndim == 3 and labels.ndim == 2
        image, labels = _aligned({"photos": _batched(image, 4), "label maps": _batched(labels, 3)})
        self._check_image(image, labels)
        codes = self.model.get_learned_conditioning(image.to(self.device), self.maker.mask(labels))
        styles = [StyleCode(code, self.label_set, self.encoder) for code in codes]
        return styles[0] if single else styles

    def random_style(self, labels: Tensor) -> Any:
        """Return the codes of an empty image with these label maps: with them noise decides the style."""
        return self.read_style(
            labels.new_zeros((*labels.shape[:-2], 3, *labels.shape[-2:]), dtype=torch.float32), labels
        )

    def load_style(self, path: str | Path) -> StyleCode:
        """Read a style that `StyleCode.save` wrote; raises StyleError if it is not one of this model."""
        style = load_style(path, self.label_set)
        check_encoder(style, tuple(style.codes.shape), self.encoder)
        return style

    # --- images ---

    @torch.no_grad()
    def reconstruct(self, image: Tensor) -> Tensor:
        """Return what the first stage alone makes of an image: the best that any sample can be."""
        self.maker.latent_size(image)
        if not image.isfinite().all():
            raise ValueError("the image holds values that are not finite")
        z = self.model.encode_first_stage(_batched(image, 4).to(self.device))
        return self.model.decode_first_stage(z).clamp(-1, 1).view(image.shape)

    @torch.no_grad()
    def __call__(self, labels: Tensor, style: Styles, **options: Unpack[SamplingOptions]) -> Tensor:
        """Make images from label maps and styles; the label maps may be drawn, or those of another face.

        Args:
            labels: the shapes.
            style: the looks.
            options: see `Sampling`.

        Returns:
            Images in [-1, 1], on the model's device.

        Raises:
            ValueError: what does not fit the model or each other, or an option that cannot be.
        """
        how = sampling(**options)
        single = labels.ndim == 2 and isinstance(style, StyleCode)
        labels, codes = _aligned({"label maps": _batched(labels, 3), "styles": self._codes(style)})
        self._check_labels(labels)
        images = self.maker.make(Described(labels, codes), how)
        return images[0] if single else images

    @torch.no_grad()
    def edit(
        self,
        image: Tensor,
        labels: Tensor,
        style: Styles,
        *,
        regions: Iterable[str],
        new_labels: Tensor | None = None,
        lock: bool = True,
        invert: bool = False,
        border: int | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Tensor:
        """Change regions of a photo.

        Args:
            image: the photo.
            labels: its label map.
            style: what the face shall look like: the photo's own style with some regions changed.
            regions: what may change; with `new_labels` also every pixel at which the two maps differ.
            new_labels: the shapes wanted, where they shall change too.
            lock: keep the photo's own pixels everywhere else, exactly, but for `border` pixels.
            invert: start from the noise that DDIM would turn into the photo (arXiv 2010.02502, section 4.3), so that
                the photo's detail survives where nothing changes; for the solver ddim with eta 0, which it chooses.
            border: width of the soft edge in pixels; by default a 64th of the height.
            options: see `Sampling`.

        Returns:
            Images in [-1, 1], on the model's device.

        Raises:
            ValueError: what does not fit the model or each other, or an option that cannot be.
        """
        how = inverting(**options) if invert else sampling(**options)
        rows = self.label_set.indices(regions)
        new_labels = labels if new_labels is None else new_labels
        single = image.ndim == 3 and labels.ndim == new_labels.ndim == 2 and isinstance(style, StyleCode)
        image, labels, target, codes = _aligned(
            {
                "photos": _batched(image, 4),
                "label maps": _batched(labels, 3),
                "new label maps": _batched(new_labels, 3),
                "styles": self._codes(style),
            }
        )
        self._check_labels(target)
        self._check_image(image, labels)
        if target.shape[-2:] != labels.shape[-2:]:
            raise ValueError(
                f"new_labels are {tuple(target.shape[-2:])}, the photo {tuple(labels.shape[-2:])}; wanted one size"
            )
        weights = None
        if lock:
            width = max(1, round(image.shape[-2] / 64)) if border is None else border
            if width < 0:
                raise ValueError(f"border is {border}; wanted 0 or more pixels")
            weights = soften(area_of(rows, labels, target), width)
        own = Described(labels, _stacked(self.read_style(image, labels))) if invert else None
        images = self.maker.make(Described(target, codes), how, Original(image, weights, own))
        return images[0] if single else images

    @torch.no_grad()
    def invert(
        self,
        image: Tensor,
        labels: Tensor,
        *,
        steps: int = 50,
        spacing: Spacing = "uniform",
        progress: Progress | None = None,
    ) -> Tensor:
        """Return the noise (B, C, h, w) from which DDIM in as many steps makes the image again, nearly."""
        image, labels = _aligned({"photos": _batched(image, 4), "label maps": _batched(labels, 3)})
        own = Described(labels, _stacked(self.read_style(image, labels)))
        return self.maker.invert(image, own, steps, spacing, progress)

    # --- checks ---

    def _codes(self, style: Styles) -> Tensor:
        """Return the codes (B, R, D) of one style or several; StyleError for those of another model."""
        styles = [style] if isinstance(style, StyleCode) else list(style)
        if not styles:
            raise ValueError("no styles; wanted one, or one per image")
        R, D = self.model.num_regions, self.model.unet.context_dim
        for one in styles:
            check_encoder(one, (R, D), self.encoder)
        return _stacked(styles)

    def _check_labels(self, labels: Tensor) -> None:
        self.maker.latent_size(labels)
        for one in labels:  # all of them, before the first image is made
            self.maker.mask(one[None])

    def _check_image(self, image: Tensor, labels: Tensor) -> None:
        if image.shape[0] != labels.shape[0] or image.shape[-2:] != labels.shape[-2:] or image.shape[1] != 3:
            raise ValueError(
                f"images {tuple(image.shape)} and label maps {tuple(labels.shape)}; wanted (B, 3, H, W) and (B, H, W)"
            )
        if not image.isfinite().all():
            raise ValueError("the image holds values that are not finite")


def _stacked(styles: Sequence[StyleCode]) -> Tensor:
    """Return the codes (B, R, D)."""
    return torch.stack([style.codes for style in styles])


def _batched(tensor: Tensor, ndim: int) -> Tensor:
    """Return a tensor that has its batch dimension."""
    if tensor.ndim == ndim - 1:
        return tensor[None]
    if tensor.ndim != ndim:
        what = "an image (3, H, W) or (B, 3, H, W)" if ndim == 4 else "a label map (H, W) or (B, H, W)"
        raise ValueError(f"got a tensor {tuple(tensor.shape)}; wanted {what}")
    return tensor


def _aligned(parts: Mapping[str, Tensor]) -> list[Tensor]:
    """Return all parts (B, ...), given by name, with the B of the largest; what is one serves all."""
    count = max(map(len, parts.values()))
    if any(len(part) not in (1, count) for part in parts.values()):
        found = " and ".join(f"{len(part)} {name}" for name, part in parts.items())
        raise ValueError(f"{found}; wanted as many of each, or one for all")
    return [part.expand(count, *part.shape[1:]) for part in parts.values()]
