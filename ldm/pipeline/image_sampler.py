"""ImageSampler: label maps and style codes to images, in batches that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.checkpoints.free_memory import free_bytes
from ldm.data.labels import UNLABELED, LabelSet, check_labels, one_hot
from ldm.data.transfer import to_device
from ldm.pipeline.edit_masks import blend, shrink
from ldm.pipeline.memory import USABLE, bytes_of
from ldm.pipeline.options import Preview, Progress, Sampling
from ldm.pipeline.preview_decoder import PreviewDecoder
from ldm.sampling import guide, invert, sample
from ldm.sampling.locking import lock
from ldm.sampling.noise import draw, seeded
from ldm.sampling.predict import Predict, TimedPredict, evaluate
from ldm.sampling.schedule import Spacing

if TYPE_CHECKING:
    from ldm.models.diffusion import Condition, LatentDiffusion


@dataclass(frozen=True)
class SamplingInputs:
    """Conditioning of B images: label maps (B, H, W) and style codes (B, R, D)."""

    labels: Tensor
    codes: Tensor

    def __getitem__(self, rows: slice) -> SamplingInputs:
        """Return a slice of the batch."""
        return SamplingInputs(self.labels[rows], self.codes[rows])


@dataclass(frozen=True)
class EditSource:
    """Source images of an edit.

    Attributes:
        image: (B, 3, H, W) in [-1, 1].
        weights: edit mask (B, 1, H, W), 0 where pixels are kept; None to change all pixels.
        inputs: label maps and styles of the source, to start sampling from its DDIM inversion; else None.
    """

    image: Tensor
    weights: Tensor | None = None
    inputs: SamplingInputs | None = None

    def __getitem__(self, rows: slice) -> EditSource:
        """Return a slice of the batch."""
        weights = None if self.weights is None else self.weights[rows]
        return EditSource(self.image[rows], weights, None if self.inputs is None else self.inputs[rows])


class ImageSampler:
    """Samples images with one model."""

    def __init__(self, model: LatentDiffusion, label_set: LabelSet, dtype: torch.dtype) -> None:
        """Take a model in evaluation mode, its label set, and the dtype of UNet and decoder."""
        self.model, self.label_set, self.dtype = model, label_set, dtype
        self.preview_decoder: PreviewDecoder | None = None  # None for the model's own decoder

    def sample(self, inputs: SamplingInputs, options: Sampling, source: EditSource | None = None) -> Tensor:
        """Sample all images in batches; return (B, 3, H, W) in [-1, 1] on the model's device."""
        B, seeds = len(inputs.labels), options.seeds(len(inputs.labels))
        batch_size = options.batch_size or self.fitting_batch_size(inputs, options)
        inverts = source is not None and source.inputs is not None
        stages = StageProgress(options.progress, math.ceil(B / batch_size) * (2 if inverts else 1))
        images = []
        for start in range(0, B, batch_size):
            rows = slice(start, start + batch_size)
            part = None if source is None else source[rows]
            images.append(self._batch(inputs[rows], seeds[rows], options, part, stages))
        return torch.cat(images)

    def _batch(
        self,
        inputs: SamplingInputs,
        seeds: list[int],
        options: Sampling,
        source: EditSource | None,
        stages: StageProgress,
    ) -> Tensor:
        size, device = self.latent_size(inputs.labels), self.model.device
        generators = seeded(seeds)
        x = draw((len(seeds), self.model.channels, *size), generators, device)
        with self._autocast():
            predict = self._predict(inputs, options, size)
        original = weights = None
        if source is not None:
            original = source.image.to(device)
            if source.inputs is not None:
                x = self.invert(
                    original, source.inputs, options.used_steps, options.used_spacing, stages.next_stage()
                )
            if source.weights is not None:
                weights = source.weights.to(device)
                editable = shrink(weights, self.model.first_stage_model.factor)
                predict = lock(
                    predict, self.model.schedule, self.model.encode_first_stage(original), editable
                )
        if options.preview is not None:
            predict = self._with_preview(predict, options.preview)
        with self._autocast():
            z = sample(
                predict,
                x,
                self.model.schedule,
                steps=options.used_steps,
                solver=options.solver,
                eta=options.eta,
                spacing=options.used_spacing,
                order=options.used_order,
                generator=generators,
                progress=stages.next_stage(),
            )
            _check_finite(z, options)
            images = self._images(z, options)
        return images if original is None or weights is None else blend(images, original, weights)

    def invert(
        self, image: Tensor, inputs: SamplingInputs, steps: int, spacing: Spacing, progress: Progress | None
    ) -> Tensor:
        """Return the DDIM inversion (B, C, h, w) of images (B, 3, H, W) in [-1, 1]."""
        z = self.model.encode_first_stage(image.to(self.model.device))
        ready = self.model.prepare(self.condition(inputs), (z.shape[-2], z.shape[-1]))
        return invert(
            lambda x, t: self.model.apply_model(x, t, ready),
            z,
            self.model.schedule,
            steps=steps,
            spacing=spacing,
            progress=progress,
        )

    def condition(self, inputs: SamplingInputs) -> Condition:
        """Return the `cond` argument of `LatentDiffusion.apply_model`, on the model's device."""
        device = self.model.device
        # A label map gives each pixel at most one region; looking for that in the mask would wait for a GPU.
        return {"context": inputs.codes.to(device), "y": self.mask(inputs.labels), "exclusive": True}

    def mask(self, labels: Tensor) -> Tensor:
        """Return one-hot masks (B, R, H, W) on the model's device."""
        check_labels(labels, self.model.num_regions)  # before they are on a GPU: the host would wait for it
        return one_hot(to_device(labels, self.model.device), self.model.num_regions, checked=True)

    def latent_size(self, labels: Tensor) -> tuple[int, int]:
        """Return (h, w) of the latents; raise ValueError if the networks cannot downsample the size."""
        factor = self.model.first_stage_model.factor
        unit = factor * self.model.unet.factor
        H, W = labels.shape[-2:]
        if H % unit or W % unit:
            raise ValueError(
                f"height and width of label maps must be multiples of {unit} pixels, got {H}x{W}"
            )
        return H // factor, W // factor

    def _images(self, z: Tensor, options: Sampling) -> Tensor:
        """Decode latents (B, C, h, w) to images (B, 3, H, W) in [-1, 1]; raise ValueError if a value overflows."""
        images = self.model.decode_first_stage(z).float()
        _check_finite(images, options)
        return images.clamp(-1, 1)

    def _with_preview(self, predict: Predict, preview: Preview) -> Predict:
        """Wrap `predict` to also pass the current estimate of x0 to `preview`."""
        alpha_bar = self.model.schedule.alpha_bar.tolist()
        decode = self.preview_decoder or self.model.decode_first_stage

        def with_preview(x: Tensor, t: Tensor, timestep: int) -> Tensor:
            eps, a = evaluate(predict, x, t, timestep), alpha_bar[timestep]
            if a > 0:  # x0 is undefined at pure noise
                preview(lambda: decode((x - (1 - a) ** 0.5 * eps) / a**0.5).float().clamp(-1, 1))
            return eps

        return TimedPredict(with_preview)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.dtype)

    def _predict(self, inputs: SamplingInputs, options: Sampling, size: tuple[int, int]) -> Predict:
        cond = self.condition(inputs)
        null, active = cond, None
        scale = self._guidance_scale(options.guidance, inputs.labels, size)
        if options.null == "zero":
            null = {**cond, "context": 0 * cond["context"], "y": 0 * cond["y"]}
        elif bool((torch.as_tensor(scale) != 1).any()):
            empty = torch.zeros(len(inputs.labels), 3, *inputs.labels.shape[-2:], device=self.model.device)
            with torch.autocast(self.model.device.type, enabled=False):  # styles always use float32
                codes = self.model.get_learned_conditioning(empty, cond["y"])
            null = {**cond, "context": codes}
        if options.guidance_interval is not None:
            low, high = options.guidance_interval
            alpha_bar = self.model.schedule.alpha_bar
            sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
            active = ((sigma >= low) & (sigma <= high)).tolist().__getitem__
        return guide(
            self.model.apply_model,
            cond,
            null,
            scale,
            prepare=(lambda ready: self.model.prepare(ready, size)) if options.cache else None,
            active=active,
        )

    def _guidance_scale(
        self, guidance: float | Mapping[str, float], labels: Tensor, size: tuple[int, int]
    ) -> float | Tensor:
        """Return the guidance scale: one number, or (B, 1, h, w) if `guidance` is given by region."""
        if not isinstance(guidance, Mapping):
            return guidance
        table = torch.ones(UNLABELED + 1)
        table[self.label_set.indices(guidance)] = torch.tensor(list(guidance.values()), dtype=torch.float32)
        full = table[labels.long().cpu()][:, None].to(self.model.device)
        return F.interpolate(full, size=size, mode="area")

    def fitting_batch_size(self, inputs: SamplingInputs, options: Sampling) -> int:
        """Return the batch size that fits into memory, up to the number of images."""
        free, labels = free_bytes(self.model.device), inputs.labels
        if free is None:
            return len(labels)
        needed = self._bytes_per_image(inputs[:1], passes=1 if options.guidance == 1 else 2)
        if needed > free:
            H, W = labels.shape[-2:]
            unit = self.model.first_stage_model.factor * self.model.unet.factor
            side = int((free / needed * H * W) ** 0.5) // unit * unit
            raise ValueError(
                f"an image of {H}x{W} needs about {needed / 2**30:.1f} GiB, but {self.model.device} has "
                f"{free / 2**30:.1f} GiB free; close other programs"
                + (f", or sample at {side}x{side}, which fits" if side else "")
            )
        return max(1, min(len(labels), int(USABLE * free / needed)))

    def _bytes_per_image(self, inputs: SamplingInputs, passes: int) -> int:
        """Estimate the memory for one image in bytes: conditioning and features of the UNet, and the decoder."""
        H, W = inputs.labels.shape[-2:]
        unit = self.model.unet.factor
        # Prepare the conditioning of a small corner and of one twice as wide, to separate the memory proportional
        # to the number of pixels from the constant memory: the keys and values of the codes.
        side = unit * self.model.first_stage_model.factor
        cond = self.condition(SamplingInputs(inputs.labels[:, :side, :side], inputs.codes))
        single, double = (
            bytes_of(self.model.prepare(cond, (unit, width))["prepared"]) for width in (unit, 2 * unit)
        )
        conditioning = single + (double - single) * (H * W // side**2 - 1)
        # The decoder's peak is about five copies of its widest features at full size, which have twice the
        # channels of the last layer's input.
        last = self.model.first_stage_model.decoder.conv_out.weight
        decoding = 5 * 2 * last.shape[1] * H * W * last.element_size()
        return 2 * passes * conditioning + decoding


def _check_finite(values: Tensor, options: Sampling) -> None:
    if not values.isfinite().all():
        raise ValueError(
            "sampling produced non-finite values; use precision float32 or a lower guidance than "
            f"{options.guidance}"
        )


class StageProgress:
    """Total progress over several stages with the same number of steps: batches, and inversions before them."""

    def __init__(self, progress: Progress | None, stages: int) -> None:
        self._progress, self._stages, self._started = progress, stages, 0

    def next_stage(self) -> Progress | None:
        """Return the progress callback of the next stage."""
        progress, stage = self._progress, self._started
        self._started += 1
        if progress is None:
            return None
        return lambda done, total: progress(stage * total + done, self._stages * total)
