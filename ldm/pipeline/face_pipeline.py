"""FacePipeline: read styles from images, edit them and sample images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from ldm.checkpoints import fingerprint as fingerprints
from ldm.checkpoints.locate import usable_device
from ldm.data.labels import LabelSet, check_labels
from ldm.pipeline import sharing
from ldm.pipeline.batches import broadcast, check_sizes, checked_images, slices, stack_codes, with_batch
from ldm.pipeline.edit_masks import area_of, soften
from ldm.pipeline.image_sampler import EditSource, ImageSampler, SamplingInputs, StageProgress
from ldm.pipeline.options import (
    Progress,
    Sampling,
    SamplingOptions,
    validate_inversion_options,
    validate_options,
)
from ldm.pipeline.pretrained import (
    Precision,
    Weights,
    check_precision,
    compile_step,
    load_pretrained,
    working_dtype,
)
from ldm.pipeline.preview_decoder import PreviewDecoder, images_needed
from ldm.pipeline.style_code import StyleCode, check_encoder, load_style
from ldm.sampling.schedule import Spacing

if TYPE_CHECKING:
    from ldm.models.diffusion import LatentDiffusion

Styles = StyleCode | Sequence[StyleCode]


class FacePipeline:
    """Inference with a trained model.

    Images are (3, H, W) or (B, 3, H, W) in [-1, 1], label maps (H, W) or (B, H, W) of integers, and styles a
    `StyleCode` or a list of B. Single inputs are broadcast to the batch; without a batch, the result is
    single.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        label_set: LabelSet,
        size: tuple[int, int],
        precision: Precision = "float32",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a model in evaluation mode, its label set and the (H, W) of its training images.

        `config`, the content of its YAML, is only needed by `save_pretrained` and `push_to_hub`.
        """
        self.sampler = ImageSampler(model, label_set, working_dtype(precision, model))
        self.model = model
        self.label_set = label_set
        self.size = size
        self.config = config

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
            path: a run folder, a folder with model.safetensors and config.yaml, a weight file (.ckpt,
                .safetensors) or, if huggingface_hub is installed, the owner/name of such a folder on the hub.
            config: YAML of the model, for weight files without one.
            weights: "ema" for the UNet's EMA weights, "raw" for its last weights; None for EMA if available.
            device: "cpu", "cuda" or "mps"; by default the fastest available.
            precision: precision of UNet and decoder, "float32", "bfloat16" or "float16"; "auto" is bfloat16
                where the device computes in it natively and a short measurement finds it faster, else
                float32. Styles and inversions always use float32.
            compile: compile the UNet with torch.compile. This takes minutes at the first image of each shape
                and needs a C++ compiler. On CUDA, steps are also captured as CUDA graphs.

        Raises:
            CheckpointError: missing weights or config, weights that do not fit the config, or non-finite
                weights.
        """
        check_precision(precision)  # fail before loading takes minutes
        usable_device(device)
        found = load_pretrained(path, config=config, weights=weights, device=device)
        pipe = cls(found.model, found.label_set, found.size, precision, found.config)
        if compile:
            compile_step(pipe.model)
        return pipe

    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype = torch.float16, **metadata: Any
    ) -> Path:
        """Write model.safetensors, config.yaml and a model card; `from_pretrained` and main.py read the folder.

        Args:
            folder: the folder; an existing README.md in it is kept.
            dtype: of matrices and kernels in the file.
            metadata: of the model card, such as license="mit" or datasets=["..."].

        Raises:
            CheckpointError: the pipeline has no config.
        """
        return sharing.save_pretrained(self, folder, dtype=dtype, name=str(folder), metadata=metadata)

    def push_to_hub(
        self,
        name: str,
        *,
        dtype: torch.dtype = torch.float16,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload model",
        **metadata: Any,
    ) -> str:
        """Upload the files of `save_pretrained` to the Hugging Face hub as owner/name; return the commit's URL.

        Args:
            name: owner/name; created if it does not exist.
            dtype: of matrices and kernels in the file.
            private: visibility of a new repository; None for the owner's default.
            token: access token; None for the one of `hf auth login`.
            message: commit message.
            metadata: of the model card, such as license="mit" or datasets=["..."].

        Raises:
            CheckpointError: no config, huggingface_hub is not installed, or the upload failed.
        """
        return sharing.push_to_hub(
            self, name, dtype=dtype, metadata=metadata, private=private, token=token, message=message
        )

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    @property
    def precision(self) -> str:
        """Precision of UNet and decoder: "float32", "bfloat16" or "float16"."""
        return str(self.sampler.dtype).removeprefix("torch.")

    @cached_property
    def encoder_fingerprint(self) -> str:
        """Fingerprint of the style encoder; style codes are only valid for the encoder that computed them."""
        return fingerprints.fingerprint(self.model.cond_stage_model)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole model; only the same model reproduces an image."""
        return fingerprints.fingerprint(self.model)

    # --- styles ---

    @torch.no_grad()
    def read_style(self, image: Tensor, labels: Tensor) -> Any:
        """Encode an image with its label map into a StyleCode, or a list of them if either is a batch.

        Raises:
            ValueError: sizes that differ, unknown labels, or an image that is not in [-1, 1].
        """
        single = image.ndim == 3 and labels.ndim == 2
        image, labels = self._image_and_labels(image, labels)
        codes = self._read_codes(image, labels, self._batch_size(labels))
        styles = [StyleCode(code, self.label_set, self.encoder_fingerprint) for code in codes]
        return styles[0] if single else styles

    def null_style(self, labels: Tensor) -> Any:
        """Return the null style, the codes of an all-zero image: sampling with it draws a random appearance.

        The style itself is deterministic; the appearance depends on the `seed` of sampling.

        Args:
            labels: (H, W), or (B, H, W) for a list of B styles.

        Raises:
            ValueError: unknown labels, or a size that the style encoder cannot downsample.
        """
        return self.read_style(
            labels.new_zeros((*labels.shape[:-2], 3, *labels.shape[-2:]), dtype=torch.float32), labels
        )

    def load_style(self, path: str | Path) -> StyleCode:
        """Read a style written by `StyleCode.save`; raise StyleError if it belongs to another model."""
        style = load_style(path, self.label_set)
        check_encoder(style, tuple(style.codes.shape), self.encoder_fingerprint)
        return style

    # --- images ---

    @torch.no_grad()
    def autoencode(self, image: Tensor) -> Tensor:
        """Encode and decode images with the first stage, an upper bound on sample quality.

        Args:
            image: (3, H, W) or (B, 3, H, W) in [-1, 1].

        Returns:
            The shape of `image`, in [-1, 1], on the model's device.

        Raises:
            ValueError: values that are not in [-1, 1], or a size that the first stage cannot downsample.
        """
        (images,) = broadcast({"images": with_batch(image, 4)})
        images = checked_images(images)
        factor, (H, W) = self.model.first_stage_model.factor, images.shape[-2:]
        if H % factor or W % factor:
            raise ValueError(f"height and width of images must be multiples of {factor} pixels, got {H}x{W}")
        batch_size = self._batch_size(torch.zeros(len(images), H, W, dtype=torch.uint8))
        decoded = [
            self.model.decode_first_stage(self.model.encode_first_stage(images[rows].to(self.device)))
            for rows in slices(len(images), batch_size)
        ]
        return torch.cat(decoded).clamp(-1, 1).view(image.shape)

    @torch.no_grad()
    def fit_preview(self, images: Iterable[Tensor]) -> None:
        """Fit a linear decoder for the option `preview`, which takes 1/50 to 1/300 of the decoder's time.

        Args:
            images: photos (3, H, W) in [-1, 1] of the model's size; no more are read than the fit needs,
                usually 1 to 5. Without any, previews keep the model's own decoder.

        Raises:
            RuntimeError: images of different sizes.
        """
        height, width = self.size
        factor = self.model.first_stage_model.factor
        count = images_needed(self.model.channels, (height // factor, width // factor))
        chosen = list(islice(images, count))
        if chosen:
            batch = torch.stack(chosen)
            latents = [self.model.encode_first_stage(image[None].to(self.device)) for image in batch]
            self.sampler.preview_decoder = PreviewDecoder.fit(torch.cat(latents), batch)

    @torch.no_grad()
    def __call__(self, labels: Tensor, style: Styles, **options: Unpack[SamplingOptions]) -> Tensor:
        """Sample images from label maps and styles.

        Args:
            labels: label maps, parsed or drawn.
            style: style codes.
            options: see `Sampling`.

        Returns:
            Images in [-1, 1], on the model's device.

        Raises:
            ValueError: inputs that do not fit the model or each other, or an invalid option.
        """
        checked = self._checked(validate_options(**options))
        single = labels.ndim == 2 and isinstance(style, StyleCode)
        labels, codes = broadcast({"label maps": with_batch(labels, 3), "styles": self._codes(style)})
        self._check_labels(labels)
        images = self.sampler.sample(SamplingInputs(labels, codes), checked)
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
        """Edit regions of an image.

        Args:
            image: source image.
            labels: label map of the source image.
            style: target style, usually the source style with some regions replaced.
            regions: names of the regions to edit; pixels that differ between `labels` and `new_labels` are
                edited too.
            new_labels: target label map; None for `labels`.
            lock: keep all other pixels exactly, except within `border` pixels of the edit.
            invert: start from the DDIM inversion of the image (arXiv 2010.02502, section 4.3), which
                preserves detail in unedited areas; requires the solver ddim with eta 0, and defaults to it
                and 50 steps.
            border: width of the soft edge of a locked edit in pixels; by default 1/64 of the height.
            options: see `Sampling`.

        Returns:
            Images in [-1, 1], on the model's device.

        Raises:
            ValueError: inputs that do not fit the model or each other, or an invalid option.
        """
        checked = self._checked(
            validate_inversion_options(**options) if invert else validate_options(**options)
        )
        rows = self.label_set.indices(regions)
        new_labels = labels if new_labels is None else new_labels
        single = image.ndim == 3 and labels.ndim == new_labels.ndim == 2 and isinstance(style, StyleCode)
        image, labels, target, codes = broadcast(
            {
                "images": with_batch(image, 4),
                "label maps": with_batch(labels, 3),
                "new label maps": with_batch(new_labels, 3),
                "styles": self._codes(style),
            }
        )
        self._check_labels(target)
        image = checked_images(image)
        check_sizes(image, labels)
        if target.shape[-2:] != labels.shape[-2:]:
            raise ValueError(
                f"new_labels must have the size of the image, {tuple(labels.shape[-2:])}, "
                f"got {tuple(target.shape[-2:])}"
            )
        if border is not None and not lock:
            warnings.warn("border has no effect with lock=False: no pixels are kept", stacklevel=3)
        weights = soften(area_of(rows, labels, target), border) if lock else None
        own = None
        if invert:
            batch_size = checked.batch_size or self._batch_size(labels)
            own = SamplingInputs(labels, self._read_codes(image, labels, batch_size))
        images = self.sampler.sample(SamplingInputs(target, codes), checked, EditSource(image, weights, own))
        return images[0] if single else images

    @torch.no_grad()
    def invert(
        self,
        image: Tensor,
        labels: Tensor,
        *,
        steps: int | None = None,
        spacing: Spacing = "uniform",
        progress: Progress | None = None,
    ) -> Tensor:
        """Return the DDIM inversion: noise from which DDIM approximately reconstructs the image.

        `edit(invert=True)` starts from it by itself; to sample from it otherwise, pass it to
        `ldm.sampling.sample` as `x_T`.

        Args:
            image: (3, H, W) or (B, 3, H, W) in [-1, 1].
            labels: label maps (H, W) or (B, H, W).
            steps: number of DDIM steps, in [1, 1000]; None for 50.
            spacing: timestep spacing, as in `Sampling`.
            progress: callback after every step, as in `Sampling`.

        Returns:
            Latents (B, C, h, w), also for a single image, on the model's device.

        Raises:
            ValueError: inputs that do not fit the model or each other, or an invalid option.
        """
        checked = self._checked(validate_inversion_options(steps=steps, spacing=spacing, progress=progress))
        image, labels = self._image_and_labels(image, labels)
        self._check_labels(labels)
        batch_size = self._batch_size(labels)
        own = SamplingInputs(labels, self._read_codes(image, labels, batch_size))
        parts = list(slices(len(image), batch_size))
        stages = StageProgress(progress, len(parts))
        steps, spacing = checked.used_steps, checked.used_spacing
        return torch.cat(
            [
                self.sampler.invert(image[rows], own[rows], steps, spacing, stages.next_stage())
                for rows in parts
            ]
        )

    # --- batches ---

    def _image_and_labels(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return checked images (B, 3, H, W) and label maps (B, H, W)."""
        image, labels = broadcast({"images": with_batch(image, 4), "label maps": with_batch(labels, 3)})
        image = checked_images(image)
        check_sizes(image, labels)
        return image, labels

    def _read_codes(self, image: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        """Return the style codes (B, R, D) of images (B, 3, H, W) and label maps (B, H, W)."""
        codes = [
            self.model.get_learned_conditioning(image[rows].to(self.device), self.sampler.mask(labels[rows]))
            for rows in slices(len(image), batch_size)
        ]
        return torch.cat(codes)

    def _batch_size(self, labels: Tensor) -> int:
        """Return the batch size at which sampling fits into memory; reading styles needs less."""
        if len(labels) == 1:
            return 1
        codes = torch.zeros(len(labels), self.model.num_regions, self.model.unet.context_dim)
        return self.sampler.fitting_batch_size(SamplingInputs(labels, codes), Sampling())

    # --- checks ---

    def _checked(self, options: Sampling) -> Sampling:
        """Return options with the number of steps filled in; check those that depend on the model.

        Raises:
            ValueError: an unknown region, or more steps than the model has timesteps.
        """
        if isinstance(options.guidance, Mapping):
            self.label_set.indices(options.guidance)
        if options.without_effect:
            names = " and ".join(options.without_effect)
            warnings.warn(f"no effect without guidance, which is 1: {names}", stacklevel=4)
        T = len(self.model.schedule)
        if options.steps is not None and options.steps > T:
            raise ValueError(f"steps must be in [1, {T}], the timesteps of the model, got {options.steps}")
        return replace(options, steps=min(options.used_steps, T))

    def _codes(self, style: Styles) -> Tensor:
        """Return the codes (B, R, D) of one or several styles; raise StyleError for those of another model."""
        styles = [style] if isinstance(style, StyleCode) else list(style)
        if not styles:
            raise ValueError("style must be a StyleCode or a list of one per image, got an empty list")
        R, D = self.model.num_regions, self.model.unet.context_dim
        for one in styles:
            check_encoder(one, (R, D), self.encoder_fingerprint)
        return stack_codes(styles)

    def _check_labels(self, labels: Tensor) -> None:
        self.sampler.latent_size(labels)
        check_labels(labels, self.model.num_regions)  # all, before sampling the first
