"""FacePipeline: read styles, edit them, make images."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from ldm.data.labels import LabelSet, one_hot
from ldm.models.diffusion import Condition, LatentDiffusion
from ldm.pipeline.editing import area_of, blend, shrink, soften
from ldm.pipeline.memory import SHARE, bytes_of, free_bytes
from ldm.pipeline.options import Progress, Sampling, SamplingOptions, sampling
from ldm.pipeline.pretrained import Weights, load_pretrained
from ldm.pipeline.style_code import StyleCode, check_encoder, load_style
from ldm.sampling import guide, invert, sample
from ldm.sampling.locking import lock
from ldm.sampling.noise import draw, seeded
from ldm.sampling.schedule import Spacing
from ldm.sampling.solvers import Predict

Styles = StyleCode | Sequence[StyleCode]


class FacePipeline:
    """A trained model and what one does with it.

    Images are (3, H, W) or (B, 3, H, W) in [-1, 1], label maps (H, W) or (B, H, W) of integers, styles a `StyleCode`
    or a list of B. What is one where the others are many is used for all of them; one of each gives one.
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
            CheckpointError: no weights, no config, the two do not fit, or weights that are not finite.
        """
        return cls(*load_pretrained(path, config=config, weights=weights, device=device))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @cached_property
    def encoder(self) -> str:
        """The style encoder's fingerprint: codes of one encoder mean nothing to another."""
        digest = hashlib.sha256()
        for name, tensor in self.model.cond_stage_model.state_dict().items():
            digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    # --- styles ---

    @torch.no_grad()
    def read_style(self, image: Tensor, labels: Tensor) -> Any:
        """Return the style of a photo with its label map: a StyleCode; a list of them for (B, ...).

        Raises:
            ValueError: sizes that differ, labels that the model does not know, an image that is not finite.
        """
        single = image.ndim == 3
        image, labels = _batched(image, 4), _batched(labels, 3)
        self._check_image(image, labels)
        codes = self.model.get_learned_conditioning(image.to(self.device), self._mask(labels))
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
        labels, styles = self._aligned(_batched(labels, 3), style)
        images = self._make(labels, styles, how)
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
        if invert:
            options = {"solver": "ddim", "steps": 50, **options}
        how = sampling(**options)
        if invert and (how.solver != "ddim" or how.eta != 0):
            raise ValueError(f"inversion wants solver ddim with eta 0, not {how.solver} with {how.eta}")
        rows = self.label_set.indices(regions)
        single = image.ndim == 3 and isinstance(style, StyleCode)
        target, styles = self._aligned(_batched(labels if new_labels is None else new_labels, 3), style)
        image, labels = (_repeated(_batched(part, n), len(target)) for part, n in ((image, 4), (labels, 3)))
        self._check_image(image, labels)
        weights = None
        if lock:
            width = max(1, round(image.shape[-2] / 64)) if border is None else border
            weights = soften(area_of(rows, labels, target), width)
        images = self._make(target, styles, how, image, labels if invert else None, weights)
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
        image, labels = _batched(image, 4), _batched(labels, 3)
        self._check_image(image, labels)
        cond = self._condition(labels, self._codes(self.read_style(image, labels)))
        z = self.model.encode_first_stage(image.to(self.device))
        ready = self.model.prepare(cond, (z.shape[-2], z.shape[-1]))
        return invert(
            lambda x, t: self.model.apply_model(x, t, ready),
            z,
            self.model.schedule,
            steps=steps,
            spacing=spacing,
            progress=progress,
        )

    # --- inside ---

    def _make(
        self,
        labels: Tensor,
        styles: list[StyleCode],
        how: Sampling,
        photo: Tensor | None = None,
        photo_labels: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Make every image, a batch at a time.

        Args:
            labels, styles, how: as `__call__` takes them, one of each per image.
            photo: the images that are edited.
            photo_labels: their label maps, if sampling shall start from their inversion.
            weights: (B, 1, H, W), 0 where the photo's pixels stay; None if they need not.
        """
        B, seeds = len(labels), how.seeds(len(labels))
        size = self._latent_size(labels)
        at_once = how.batch_size or self._that_fit(labels, styles, how)
        report = _Report(how, -(-B // at_once) * (2 if photo_labels is not None else 1))
        done: list[Tensor] = []
        for start in range(0, B, at_once):
            rows = slice(start, start + at_once)
            predict = self._predict(labels[rows], styles[rows], how, size)
            generators = seeded(seeds[rows])
            x = draw((len(seeds[rows]), self.model.channels, *size), generators, self.device)
            if photo is not None:
                part = photo[rows].to(self.device)
                if photo_labels is not None:
                    x = self.invert(
                        part,
                        photo_labels[rows],
                        steps=how.steps,
                        spacing=how.used_spacing,
                        progress=report.of_stage(),
                    )
                if weights is not None:
                    free = shrink(weights[rows].to(self.device), self._factor)
                    predict = lock(predict, self.model.schedule, self.model.encode_first_stage(part), free)
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
            images = self.model.decode_first_stage(z).clamp(-1, 1)
            if photo is not None and weights is not None:
                images = blend(images, part, weights[rows].to(self.device))
            done.append(images)
        return torch.cat(done)

    def _predict(
        self, labels: Tensor, styles: list[StyleCode], how: Sampling, size: tuple[int, int]
    ) -> Predict:
        cond = self._condition(labels, self._codes(styles))
        null, active = cond, None
        strength = self._strength(how.guidance, labels, size)
        if how.null == "zero":
            null = {"context": 0 * cond["context"], "y": 0 * cond["y"]}
        elif bool((torch.as_tensor(strength) != 1).any()):
            null = self._condition(labels, self._codes(self.random_style(labels)))
        if how.guidance_interval is not None:
            low, high = how.guidance_interval
            bar = self.model.schedule.alpha_bar
            inside = (((1 - bar) / bar).sqrt().ge(low) & ((1 - bar) / bar).sqrt().le(high)).tolist()
            active = inside.__getitem__
        return guide(
            self.model.apply_model,
            cond,
            null,
            strength,
            prepare=lambda ready: self.model.prepare(ready, size),
            active=active,
        )

    def _strength(
        self, guidance: float | Mapping[str, float], labels: Tensor, size: tuple[int, int]
    ) -> float | Tensor:
        """Return the guidance of every latent pixel (B, 1, h, w), or the one number of all."""
        if not isinstance(guidance, Mapping):
            return guidance
        table = torch.ones(256)
        table[self.label_set.indices(guidance)] = torch.tensor(list(guidance.values()), dtype=torch.float32)
        full = table[labels.long().cpu()][:, None].to(self.device)
        return torch.nn.functional.interpolate(full, size=size, mode="area")

    def _that_fit(self, labels: Tensor, styles: list[StyleCode], how: Sampling) -> int:
        """Return how many images can be made at once, at most as many as are wanted."""
        free = free_bytes(self.device)
        if free is None or len(labels) == 1:
            return len(labels)
        size = self._latent_size(labels)
        ready = self.model.prepare(self._condition(labels[:1], self._codes(styles[:1])), size)
        passes = 1 if how.guidance == 1 else 2
        # The decoder's widest features, twice its last ones at full size, live about five times over.
        decoder = self.model.first_stage_model.decoder.conv_out.weight
        decoding = 5 * 2 * decoder.shape[1] * labels.shape[-2] * labels.shape[-1] * decoder.element_size()
        one = 2 * passes * bytes_of(ready["prepared"]) + decoding
        if one > free:
            raise ValueError(
                f"an image of {labels.shape[-2]}x{labels.shape[-1]} takes about {one / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} are free on {self.device}; give back memory, or make a smaller image"
            )
        return max(1, min(len(labels), int(SHARE * free / one)))

    @property
    def _factor(self) -> int:
        return self.model.first_stage_model.factor

    def _latent_size(self, labels: Tensor) -> tuple[int, int]:
        unit = self._factor * self.model.unet.factor
        H, W = labels.shape[-2:]
        if H % unit or W % unit:
            raise ValueError(f"label maps of {H}x{W}; wanted multiples of {unit} pixels")
        return H // self._factor, W // self._factor

    def _aligned(self, labels: Tensor, style: Styles) -> tuple[Tensor, list[StyleCode]]:
        """Return as many label maps as styles; one of either serves all."""
        styles = [style] if isinstance(style, StyleCode) else list(style)
        count = max(len(labels), len(styles))
        if len(labels) not in (1, count) or len(styles) not in (1, count):
            raise ValueError(
                f"{len(labels)} label maps and {len(styles)} styles; wanted as many, or one of either"
            )
        self._latent_size(labels)
        self._mask(labels[:, :1, :1])
        R, D = self.model.num_regions, self.model.unet.context_dim
        for one in styles:
            check_encoder(one, (R, D), self.encoder)
        return _repeated(labels, count), styles * (count // len(styles))

    def _check_image(self, image: Tensor, labels: Tensor) -> None:
        if image.shape[0] != labels.shape[0] or image.shape[-2:] != labels.shape[-2:] or image.shape[1] != 3:
            raise ValueError(
                f"images {tuple(image.shape)} and label maps {tuple(labels.shape)}; wanted (B, 3, H, W) and (B, H, W)"
            )
        if not image.isfinite().all():
            raise ValueError("the image holds values that are not finite")

    def _condition(self, labels: Tensor, codes: Tensor) -> Condition:
        return {"context": codes, "y": self._mask(labels)}

    def _codes(self, styles: list[StyleCode]) -> Tensor:
        return torch.stack([style.codes for style in styles]).to(self.device)

    def _mask(self, labels: Tensor) -> Tensor:
        return one_hot(labels.to(self.device), self.model.num_regions)


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


def _batched(tensor: Tensor, ndim: int) -> Tensor:
    """Return a tensor that has its batch dimension."""
    if tensor.ndim == ndim - 1:
        return tensor[None]
    if tensor.ndim != ndim:
        what = "an image (3, H, W) or (B, 3, H, W)" if ndim == 4 else "a label map (H, W) or (B, H, W)"
        raise ValueError(f"got a tensor {tuple(tensor.shape)}; wanted {what}")
    return tensor


def _repeated(tensor: Tensor, count: int) -> Tensor:
    return tensor if len(tensor) == count else tensor.expand(count, *tensor.shape[1:])
