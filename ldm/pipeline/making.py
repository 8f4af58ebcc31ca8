"""From label maps and codes to images, as many at once as memory lets."""

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
from ldm.pipeline.editing import blend, shrink
from ldm.pipeline.memory import SHARE, bytes_of
from ldm.pipeline.options import Preview, Progress, Sampling
from ldm.sampling import guide, invert, sample
from ldm.sampling.locking import lock
from ldm.sampling.noise import draw, seeded
from ldm.sampling.schedule import Spacing
from ldm.sampling.solvers import Predict

if TYPE_CHECKING:
    from ldm.models.diffusion import Condition, LatentDiffusion


@dataclass(frozen=True)
class Described:
    """What the UNet is told about B images: label maps (B, H, W) and codes (B, R, D)."""

    labels: Tensor
    codes: Tensor

    def __getitem__(self, rows: slice) -> Described:
        """Return some of the images."""
        return Described(self.labels[rows], self.codes[rows])


@dataclass(frozen=True)
class Original:
    """The photos (B, 3, H, W) that an edit starts from.

    Attributes:
        weights: (B, 1, H, W), 0 where the photo's pixels stay; None if they need not.
        described: the photos' own shapes and looks, if sampling shall start from their inversion.
    """

    photo: Tensor
    weights: Tensor | None = None
    described: Described | None = None

    def __getitem__(self, rows: slice) -> Original:
        """Return some of the images."""
        weights = None if self.weights is None else self.weights[rows]
        return Original(self.photo[rows], weights, None if self.described is None else self.described[rows])


class Maker:
    """Makes images with one model."""

    def __init__(self, model: LatentDiffusion, label_set: LabelSet, dtype: torch.dtype) -> None:
        """Take a model in evaluation mode, its regions, and what the UNet and the decoder compute in."""
        self.model, self.label_set, self.dtype = model, label_set, dtype

    def make(self, wanted: Described, how: Sampling, original: Original | None = None) -> Tensor:
        """Make every image, a batch at a time: (B, 3, H, W) in [-1, 1]."""
        B, seeds = len(wanted.labels), how.seeds(len(wanted.labels))
        at_once = how.batch_size or self._that_fit(wanted, how)
        inverts = original is not None and original.described is not None
        report = _Report(how, -(-B // at_once) * (2 if inverts else 1))
        images = []
        for start in range(0, B, at_once):
            rows = slice(start, start + at_once)
            part = None if original is None else original[rows]
            images.append(self._batch(wanted[rows], seeds[rows], how, part, report))
        return torch.cat(images)

    def _batch(
        self, wanted: Described, seeds: list[int], how: Sampling, original: Original | None, report: _Report
    ) -> Tensor:
        size, device = self.latent_size(wanted.labels), self.model.device
        generators = seeded(seeds)
        x = draw((len(seeds), self.model.channels, *size), generators, device)
        with self._casting():
            predict = self._predict(wanted, how, size)
        photo = weights = None
        if original is not None:
            photo = original.photo.to(device)
            if original.described is not None:
                x = self.invert(photo, original.described, how.steps, how.used_spacing, report.of_stage())
            if original.weights is not None:
                weights = original.weights.to(device)
                free = shrink(weights, self.model.first_stage_model.factor)
                predict = lock(predict, self.model.schedule, self.model.encode_first_stage(photo), free)
        if how.preview is not None:
            predict = self._shown(predict, how.preview)
        with self._casting():
            z = sample(
                predict,
                x,
                self.model.schedule,
                steps=how.steps,
                solver=how.solver,
                eta=how.eta,
                spacing=how.used_spacing,
                generator=generators,
                progress=report.of_stage(),
            )
            if not z.isfinite().all():
                raise ValueError(
                    "sampling ended in values that are not finite; try precision float32, or less guidance "
                    f"(it is {how.guidance})"
                )
            images = self._decoded(z)
        return images if photo is None or weights is None else blend(images, photo, weights)

    def invert(
        self, photo: Tensor, described: Described, steps: int, spacing: Spacing, progress: Progress | None
    ) -> Tensor:
        """Return the noise (B, C, h, w) from which DDIM in as many steps makes the photos again, nearly."""
        z = self.model.encode_first_stage(photo.to(self.model.device))
        ready = self.model.prepare(self.condition(described), (z.shape[-2], z.shape[-1]))
        return invert(
            lambda x, t: self.model.apply_model(x, t, ready),
            z,
            self.model.schedule,
            steps=steps,
            spacing=spacing,
            progress=progress,
        )

    def condition(self, described: Described) -> Condition:
        """Return what the model takes, on its device."""
        device = self.model.device
        return {"context": described.codes.to(device), "y": self.mask(described.labels)}

    def mask(self, labels: Tensor) -> Tensor:
        """Return one-hot masks (B, R, H, W) on the model's device."""
        return one_hot(labels.to(self.model.device), self.model.num_regions)

    def latent_size(self, labels: Tensor) -> tuple[int, int]:
        """Return (h, w) of the latents; ValueError for a size that the networks cannot halve."""
        factor = self.model.first_stage_model.factor
        unit = factor * self.model.unet.factor
        H, W = labels.shape[-2:]
        if H % unit or W % unit:
            raise ValueError(f"label maps of {H}x{W}; wanted multiples of {unit} pixels")
        return H // factor, W // factor

    def _decoded(self, z: Tensor) -> Tensor:
        return self.model.decode_first_stage(z).float().clamp(-1, 1)

    def _shown(self, predict: Predict, preview: Preview) -> Predict:
        """Return the same prediction, which also lets `preview` see the images that follow from it."""
        bar = self.model.schedule.alpha_bar.tolist()

        def seen(x: Tensor, t: Tensor) -> Tensor:
            eps, a = predict(x, t), bar[int(t[0])]
            if a > 0:  # pure noise says nothing of the image
                preview(lambda: self._decoded((x - (1 - a) ** 0.5 * eps) / a**0.5))
            return eps

        return seen

    def _casting(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.dtype)

    def _predict(self, wanted: Described, how: Sampling, size: tuple[int, int]) -> Predict:
        cond = self.condition(wanted)
        null, active = cond, None
        strength = self._strength(how.guidance, wanted.labels, size)
        if how.null == "zero":
            null = {"context": 0 * cond["context"], "y": 0 * cond["y"]}
        elif bool((torch.as_tensor(strength) != 1).any()):
            empty = torch.zeros(len(wanted.labels), 3, *wanted.labels.shape[-2:], device=self.model.device)
            with torch.autocast(self.model.device.type, enabled=False):  # styles are always float32
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
        """Return the guidance of every latent pixel (B, 1, h, w), or the one number of all."""
        if not isinstance(guidance, Mapping):
            return guidance
        table = torch.ones(UNLABELLED + 1)
        table[self.label_set.indices(guidance)] = torch.tensor(list(guidance.values()), dtype=torch.float32)
        full = table[labels.long().cpu()][:, None].to(self.model.device)
        return F.interpolate(full, size=size, mode="area")

    def _that_fit(self, wanted: Described, how: Sampling) -> int:
        """Return how many images can be made at once, at most as many as are wanted."""
        free, labels = free_bytes(self.model.device), wanted.labels
        if free is None:
            return len(labels)
        one = self._bytes_of_one(wanted[:1], passes=1 if how.guidance == 1 else 2)
        if one > free:
            H, W = labels.shape[-2:]
            unit = self.model.first_stage_model.factor * self.model.unet.factor
            side = int((free / one * H * W) ** 0.5) // unit * unit
            raise ValueError(
                f"an image of {H}x{W} takes about {one / 2**30:.1f} GiB, {free / 2**30:.1f} are free on "
                f"{self.model.device}; close other programs"
                + (f", or make an image of {side}x{side}, which would fit" if side else "")
            )
        return max(1, min(len(labels), int(SHARE * free / one)))

    def _bytes_of_one(self, wanted: Described, passes: int) -> int:
        """Estimate the memory that making one image takes: conditioning and features of the UNet, the decoder."""
        H, W = wanted.labels.shape[-2:]
        unit = self.model.unet.factor
        # A corner tells what the whole takes, and twice the corner which part of that grows with the pixels: the
        # rest are the codes' keys and values.
        side = unit * self.model.first_stage_model.factor
        cond = self.condition(Described(wanted.labels[:, :side, :side], wanted.codes))
        corner, twice = (
            bytes_of(self.model.prepare(cond, (unit, width))["prepared"]) for width in (unit, 2 * unit)
        )
        conditioning = corner + (twice - corner) * (H * W // side**2 - 1)
        # The decoder's widest features, twice its last ones at full size, live about five times over.
        last = self.model.first_stage_model.decoder.conv_out.weight
        decoding = 5 * 2 * last.shape[1] * H * W * last.element_size()
        return 2 * passes * conditioning + decoding


class _Report:
    """Adds up the steps of several stages."""

    def __init__(self, how: Sampling, stages: int) -> None:
        self._how, self._stages, self._begun = how, stages, 0

    def of_stage(self) -> Progress | None:
        """Return the progress function of the next stage."""
        progress, stage = self._how.progress, self._begun
        self._begun += 1
        if progress is None:
            return None
        return lambda done, total: progress(stage * total + done, self._stages * total)
