"""ImageSampler: label maps and style codes to images, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.checkpoints.free_memory import free_bytes
from ldm.data.labels import UNLABELLED, LabelSet, one_hot
from ldm.pipeline.edit_masks import blend, shrink
from ldm.pipeline.memory import SHARE, bytes_of
from ldm.pipeline.options import Preview, Progress, Sampling
from ldm.pipeline.preview_decoder import PreviewDecoder
from ldm.sampling import guide, invert, sample
from ldm.sampling.locking import lock
from ldm.sampling.noise import draw, seeded
from ldm.sampling.schedule import Spacing
from ldm.sampling.solvers import Predict

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
        photo: (B, 3, H, W) in [-1, 1].
        weights: edit mask (B, 1, H, W), 0 where pixels are kept; None to change all pixels.
        inputs: label maps and styles of the source, to start sampling from its DDIM inversion; else None.
    """

    photo: Tensor
    weights: Tensor | None = None
    inputs: SamplingInputs | None = None

    def __getitem__(self, rows: slice) -> EditSource:
        """Return a slice of the batch."""
        weights = None if self.weights is None else self.weights[rows]
        return EditSource(self.photo[rows], weights, None if self.inputs is None else self.inputs[rows])


class ImageSampler:
    """Samples images with one model."""

    def __init__(self, model: LatentDiffusion, label_set: LabelSet, dtype: torch.dtype) -> None:
        """Take a model in evaluation mode, its label set, and the dtype of UNet and decoder."""
        self.model, self.label_set, self.dtype = model, label_set, dtype
        self.preview_decoder: PreviewDecoder | None = None  # None for the model's own decoder

    def sample(self, inputs: SamplingInputs, how: Sampling, source: EditSource | None = None) -> Tensor:
        """Sample all images in batches; return (B, 3, H, W) in [-1, 1]."""
        B, seeds = len(inputs.labels), how.seeds(len(inputs.labels))
        batch_size = how.batch_size or self._fitting_batch_size(inputs, how)
        inverts = source is not None and source.inputs is not None
        report = _Report(how, -(-B // batch_size) * (2 if inverts else 1))
        images = []
        for start in range(0, B, batch_size):
            rows = slice(start, start + batch_size)
            part = None if source is None else source[rows]
            images.append(self._batch(inputs[rows], seeds[rows], how, part, report))
        return torch.cat(images)

    def _batch(
        self,
        inputs: SamplingInputs,
        seeds: list[int],
        how: Sampling,
        source: EditSource | None,
        report: _Report,
    ) -> Tensor:
        size, device = self.latent_size(inputs.labels), self.model.device
        generators = seeded(seeds)
        x = draw((len(seeds), self.model.channels, *size), generators, device)
        with self._casting():
            predict = self._predict(inputs, how, size)
        photo = weights = None
        if source is not None:
            photo = source.photo.to(device)
            if source.inputs is not None:
                x = self.invert(photo, source.inputs, how.used_steps, how.used_spacing, report.of_stage())
            if source.weights is not None:
                weights = source.weights.to(device)
                free = shrink(weights, self.model.first_stage_model.factor)
                predict = lock(predict, self.model.schedule, self.model.encode_first_stage(photo), free)
        if how.preview is not None:
            predict = self._with_preview(predict, how.preview)
        with self._casting():
            z = sample(
                predict,
                x,
                self.model.schedule,
                steps=how.used_steps,
                solver=how.solver,
                eta=how.eta,
                spacing=how.used_spacing,
                generator=generators,
                progress=report.of_stage(),
            )
            if not z.isfinite().all():
                raise ValueError(
                    "sampling produced non-finite values; use precision float32 or a lower guidance than "
                    f"{how.guidance}"
                )
            images = self._decoded(z)
        return images if photo is None or weights is None else blend(images, photo, weights)

    def invert(
        self, photo: Tensor, inputs: SamplingInputs, steps: int, spacing: Spacing, progress: Progress | None
    ) -> Tensor:
        """Return the DDIM inversion (B, C, h, w) of the images."""
        z = self.model.encode_first_stage(photo.to(self.model.device))
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
        """Return the condition of `LatentDiffusion.apply_model` on the model's device."""
        device = self.model.device
        return {"context": inputs.codes.to(device), "y": self.mask(inputs.labels)}

    def mask(self, labels: Tensor) -> Tensor:
        """Return one-hot masks (B, R, H, W) on the model's device."""
        return one_hot(labels.to(self.model.device), self.model.num_regions)

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

    def _decoded(self, z: Tensor) -> Tensor:
        return self.model.decode_first_stage(z).float().clamp(-1, 1)

    def _with_preview(self, predict: Predict, preview: Preview) -> Predict:
        """Wrap `predict` to also pass the current estimate of x0 to `preview`."""
        bar = self.model.schedule.alpha_bar.tolist()
        decode = self.preview_decoder or self._decoded

        def with_preview(x: Tensor, t: Tensor) -> Tensor:
            eps, a = predict(x, t), bar[int(t[0])]
            if a > 0:  # x0 is undefined at pure noise
                preview(lambda: decode((x - (1 - a) ** 0.5 * eps) / a**0.5))
            return eps

        return with_preview

    def _casting(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.dtype)

    def _predict(self, inputs: SamplingInputs, how: Sampling, size: tuple[int, int]) -> Predict:
        cond = self.condition(inputs)
        null, active = cond, None
        strength = self._strength(how.guidance, inputs.labels, size)
        if how.null == "zero":
            null = {"context": 0 * cond["context"], "y": 0 * cond["y"]}
        elif bool((torch.as_tensor(strength) != 1).any()):
            empty = torch.zeros(len(inputs.labels), 3, *inputs.labels.shape[-2:], device=self.model.device)
            with torch.autocast(self.model.device.type, enabled=False):  # styles always use float32
                codes = self.model.get_learned_conditioning(empty, cond["y"])
            null = {"context": codes, "y": cond["y"]}
        if how.guidance_interval is not None:
            low, high = how.guidance_interval
            bar = self.model.schedule.alpha_bar
            sigma = ((1 - bar) / bar).sqrt()
            active = ((sigma >= low) & (sigma <= high)).tolist().__getitem__
        return guide(
            self.model.apply_model,
            cond,
            null,
            strength,
            prepare=(lambda ready: self.model.prepare(ready, size)) if how.cache else None,
            active=active,
        )

    def _strength(
        self, guidance: float | Mapping[str, float], labels: Tensor, size: tuple[int, int]
    ) -> float | Tensor:
        """Return the guidance scale per latent pixel (B, 1, h, w), or one number for all."""
        if not isinstance(guidance, Mapping):
            return guidance
        table = torch.ones(UNLABELLED + 1)
        table[self.label_set.indices(guidance)] = torch.tensor(list(guidance.values()), dtype=torch.float32)
        full = table[labels.long().cpu()][:, None].to(self.model.device)
        return F.interpolate(full, size=size, mode="area")

    def _fitting_batch_size(self, inputs: SamplingInputs, how: Sampling) -> int:
        """Return the batch size that fits into memory, up to the number of images."""
        free, labels = free_bytes(self.model.device), inputs.labels
        if free is None:
            return len(labels)
        one = self._bytes_of_one(inputs[:1], passes=1 if how.guidance == 1 else 2)
        if one > free:
            H, W = labels.shape[-2:]
            unit = self.model.first_stage_model.factor * self.model.unet.factor
            side = int((free / one * H * W) ** 0.5) // unit * unit
            raise ValueError(
                f"an image of {H}x{W} needs about {one / 2**30:.1f} GiB, but {self.model.device} has "
                f"{free / 2**30:.1f} GiB free; close other programs"
                + (f", or sample at {side}x{side}, which fits" if side else "")
            )
        return max(1, min(len(labels), int(SHARE * free / one)))

    def _bytes_of_one(self, inputs: SamplingInputs, passes: int) -> int:
        """Estimate the memory for one image: conditioning and features of the UNet, and the decoder."""
        H, W = inputs.labels.shape[-2:]
        unit = self.model.unet.factor
        # Measure a corner and one of twice its size to separate the part that grows with the pixels from the
        # constant part, the keys and values of the codes.
        side = unit * self.model.first_stage_model.factor
        cond = self.condition(SamplingInputs(inputs.labels[:, :side, :side], inputs.codes))
        corner, twice = (
            bytes_of(self.model.prepare(cond, (unit, width))["prepared"]) for width in (unit, 2 * unit)
        )
        conditioning = corner + (twice - corner) * (H * W // side**2 - 1)
        # About five copies of the decoder's widest features, twice the channels of the last ones, at full size.
        last = self.model.first_stage_model.decoder.conv_out.weight
        decoding = 5 * 2 * last.shape[1] * H * W * last.element_size()
        return 2 * passes * conditioning + decoding


class _Report:
    """Progress over several stages of equal length."""

    def __init__(self, how: Sampling, stages: int) -> None:
        self._how, self._stages, self._begun = how, stages, 0

    def of_stage(self) -> Progress | None:
        """Return the progress callback of the next stage."""
        progress, stage = self._how.progress, self._begun
        self._begun += 1
        if progress is None:
            return None
        return lambda done, total: progress(stage * total + done, self._stages * total)
