"""Latent diffusion conditioned on the styles of regions and on their shapes."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.checkpoint import has_first_stage, load_weights, read_checkpoint
from ldm.data.images import as_unit
from ldm.data.labels import one_hot
from ldm.models.adamw_in_backward import AdamWInBackward
from ldm.models.annealing import annealed
from ldm.models.picture_draws import PictureDraws, Turn
from ldm.models.sharding import shard
from ldm.models.style_dropout import StyleDropout
from ldm.models.weighting import min_snr_weights
from ldm.modules.ema import EMA
from ldm.modules.unet import Stage
from ldm.modules.whole_batch import whole_batch
from ldm.sampling import NoiseSchedule, sample
from ldm.sampling.noise import draw, seeded
from ldm.targets import instantiate_from_config

Batch = Mapping[str, Any]
Condition = dict[str, Any]  # "context" (B, R, D), "y" (B, R, H, W); after `prepare` also "prepared"


class LatentDiffusion(pl.LightningModule):
    """First stage, style encoder and UNet, with the training of the last two.

    Args (the YAML's keys):
        first_stage_config, cond_stage_config, unet_config: targets of the three networks.
        linear_start, linear_end, timesteps: the noise schedule.
        image_size: side of the latent; channels: its channels.
        first_stage_key: the entry of a batch that is encoded.
        conditioning_key: the published YAMLs' key; only "crossattn" exists.
        cond_stage_trainable: train the style encoder with the UNet.
        probability_of_discard: share of training images whose style is that of an empty image.
        probability_of_region_discard: the same of single regions, each for itself, so that a region may be left to
            chance while the others are not.
        probability_of_mask_discard: share of training images with neither style nor mask: zeros, the published null
            of guidance, which the published training never shows.
        attn_loss_weight: weight of the attention loss, for a UNet without mask attention.
        attn_l2: attention loss by squared error instead of cross-entropy.
        parameterization: what the UNet's output means, "eps" as published, or "v" (arXiv 2202.00512), whose error
            does not explode where there is nearly only noise: for short trainings. `apply_model` gives eps for both.
        min_snr_gamma: weight timesteps by arXiv 2303.09556; 0 weights all the same, as published.
        zero_terminal_snr: a schedule that ends in pure noise (arXiv 2305.08891), for `parameterization: v`.
        use_ema, ema_decay: keep an average of the UNet's weights.
        ema_style_encoder: also one of the style encoder's; published checkpoints have none.
        scale_factor: what latents are multiplied with.
        scale_by_std: set scale_factor so that the first training batch has unit variance, and store it.
        monitor: the logged value by which the best checkpoint is chosen.
        sample_steps: DDIM steps of the picture grids.
        anneal_steps: steps in which the learning rate falls to zero; 0 keeps it, as published.
        channels_last: keep the weights of convolutions in the order in which many devices compute faster.
        step_in_backward: take the optimiser's steps while the backward pass runs, which saves the memory of the
            gradients; not with gradient clipping, accumulation or several processes.
        ckpt_path: weights to start from.
        num_timesteps_cond, log_every_t: keys of published YAMLs that change nothing here.

    Raises:
        ValueError: a setting that does not exist, or settings that contradict each other.
    """

    def __init__(
        self,
        first_stage_config: Mapping[str, Any],
        cond_stage_config: Mapping[str, Any],
        unet_config: Mapping[str, Any],
        linear_start: float = 0.0015,
        linear_end: float = 0.0195,
        timesteps: int = 1000,
        image_size: int = 64,
        channels: int = 3,
        first_stage_key: str = "image",
        conditioning_key: str = "crossattn",
        cond_stage_trainable: bool = True,
        probability_of_discard: float = 0.0,
        probability_of_region_discard: float = 0.0,
        probability_of_mask_discard: float = 0.0,
        attn_loss_weight: float = 0.0,
        attn_l2: bool = False,
        parameterization: str = "eps",
        min_snr_gamma: float = 0.0,
        zero_terminal_snr: bool = False,
        use_ema: bool = True,
        ema_decay: float = 0.9999,
        ema_style_encoder: bool = False,
        scale_factor: float = 1.0,
        scale_by_std: bool = False,
        monitor: str | None = "val/loss_simple_ema",
        sample_steps: int = 50,
        anneal_steps: int = 0,
        channels_last: bool = False,
        step_in_backward: bool = False,
        ckpt_path: str | None = None,
        num_timesteps_cond: int = 1,
        log_every_t: int = 200,
    ) -> None:
        super().__init__()
        _check_settings(
            conditioning_key, num_timesteps_cond, parameterization, zero_terminal_snr, min_snr_gamma
        )
        self.dropout = StyleDropout(
            probability_of_discard, probability_of_region_discard, probability_of_mask_discard
        )
        self.parameterization = parameterization
        if attn_l2 and not attn_loss_weight:
            warnings.warn("attn_l2 has no effect while attn_loss_weight is 0", stacklevel=2)
        self.image_size, self.channels = image_size, channels
        self.first_stage_key = first_stage_key
        self.cond_stage_trainable = cond_stage_trainable
        self.attn_loss_weight, self.attn_l2 = attn_loss_weight, attn_l2
        self.scale_by_std = scale_by_std
        # Stored where it is measured; published checkpoints have no such key.
        self.scale_factor: Tensor
        self.register_buffer("scale_factor", torch.tensor(float(scale_factor)), persistent=scale_by_std)
        self.monitor = monitor
        self.sample_steps, self.anneal_steps = sample_steps, anneal_steps
        self.step_in_backward = step_in_backward
        self.learning_rate = 0.0  # set by main.py from base_learning_rate
        self.turn: Turn | None = None  # set before each training batch by main.py's StepSeeding

        self.schedule = NoiseSchedule.scaled_linear(linear_start, linear_end, timesteps)
        if zero_terminal_snr:
            self.schedule = self.schedule.zero_terminal_snr()
        for name, buffer in self.schedule.buffers().items():
            self.register_buffer(name, buffer)
        self.loss_weights: Tensor | None
        weights = min_snr_weights(self.schedule.alpha_bar, min_snr_gamma, parameterization)
        self.register_buffer("loss_weights", weights if min_snr_gamma else None, persistent=False)
        # Attribute names are the checkpoints'.
        self.model = _Wrapped(instantiate_from_config(unet_config))
        self.model_ema = EMA(self.model, ema_decay) if use_ema else None
        start = {} if ckpt_path is None else dict(read_checkpoint(ckpt_path).state_dict)
        if has_first_stage(start):  # then its own file need not exist
            params = {**first_stage_config["params"], "ckpt_path": None}
            first_stage_config = {**first_stage_config, "params": params}
        self.first_stage_model = instantiate_from_config(first_stage_config).requires_grad_(False).eval()
        self.cond_stage_model = instantiate_from_config(cond_stage_config)
        self.cond_stage_model.requires_grad_(cond_stage_trainable)
        averaged = use_ema and ema_style_encoder
        self.cond_stage_ema = EMA(self.cond_stage_model, ema_decay) if averaged else None
        self._settle_attention()
        if start:
            self._start_from(start)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def _settle_attention(self) -> None:
        """Freeze what mask attention leaves idle; raise where a loss would want to guide it."""
        if not self.unet.use_mask_attn:
            return
        if self.attn_loss_weight:
            raise ValueError(
                f"attn_loss_weight is {self.attn_loss_weight}, but with use_mask_attn there are no logits to guide; "
                "set one of them to 0 or false"
            )
        # A label map settles this attention: its queries and keys never get a gradient, for which data-parallel
        # training would wait.
        for name, parameter in self.unet.named_parameters():
            if re.search(r"\.(attn2\.to_q|attn2\.to_k|norm2)\.", name):
                parameter.requires_grad_(False)

    def _start_from(self, weights: dict[str, Tensor]) -> None:
        """Take weights to train on from; what they lack of averages, first stage and scale stays as it is."""
        optional = ("model_ema.", "cond_stage_ema.", "first_stage_model.", "scale_factor")
        one_sided = [p for p in optional if not _has(weights, p) or not _has(self.state_dict(), p)]
        load_weights(self, weights, ignore_prefixes=one_sided)
        for average, module, prefix in self._averages():
            if not _has(weights, prefix):
                average.restart(module)

    def _averages(self) -> list[tuple[EMA, nn.Module, str]]:
        """Return what is averaged: (average, module, prefix of the average in checkpoints)."""
        found = (
            (self.model_ema, self.model, "model_ema."),
            (self.cond_stage_ema, self.cond_stage_model, "cond_stage_ema."),
        )
        return [(average, module, prefix) for average, module, prefix in found if average is not None]

    @property
    def unet(self) -> Any:
        """The noise predictor."""
        return self.model.diffusion_model

    @property
    def num_regions(self) -> int:
        """R."""
        return self.unet.num_regions

    def train(self, mode: bool = True) -> "LatentDiffusion":
        """Switch to training, or back; the first stage stays as it is."""
        super().train(mode)
        self.first_stage_model.eval()
        return self

    # --- the three networks ---

    @torch.no_grad()
    def encode_first_stage(self, image: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] to the latent z0 (B, C, h, w)."""
        return self.scale_factor * self.first_stage_model.encode(image)

    @torch.no_grad()
    def decode_first_stage(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        """Map a latent (B, C, h, w) to an image (B, 3, H, W) in about [-1, 1]; quantises first."""
        return self.first_stage_model.decode(z / self.scale_factor, force_not_quantize=force_not_quantize)

    def get_learned_conditioning(self, image: Tensor, y: Tensor) -> Tensor:
        """Return the style codes (B, R, D) of image (B, 3, H, W) with the mask y (B, R, H, W)."""
        return self.cond_stage_model(image, y)

    def prepare(self, cond: Condition, size: tuple[int, int]) -> Condition:
        """Add to `cond` what the UNet computes once per image, for latents of `size`, so that steps cost less."""
        return {**cond, "prepared": self.unet.condition(cond["context"], cond["y"], size)}

    def apply_model(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """Predict the noise in x (B, C, h, w) at t (B,) given {"context": (B, R, D), "y": (B, R, H, W)}."""
        if "prepared" not in cond:
            cond = self.prepare(cond, (x.shape[-2], x.shape[-1]))
        out = self.unet.denoise(x, t, cond["prepared"])
        if self.parameterization == "eps":
            return out
        signal, sigma = self._levels(t)
        return signal * out + sigma * x  # v = signal eps - sigma x0, and x = signal x0 + sigma eps

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar) at t (B,), both (B, 1, 1, 1)."""
        levels = self.sqrt_alphas_cumprod[t], self.sqrt_one_minus_alphas_cumprod[t]  # type: ignore[index]
        return levels[0][:, None, None, None], levels[1][:, None, None, None]

    @contextmanager
    def ema_scope(self) -> Iterator[None]:
        """Have the averaged weights, where there are averages."""
        with ExitStack() as stack:
            for average, module, _ in self._averages():
                stack.enter_context(average.applied_to(module))
            yield

    # --- training ---

    def configure_model(self) -> None:
        """Share what is trained, and its averages, among the processes, where Lightning's strategy gives a mesh."""
        if self.device_mesh is None:
            return
        mesh = self.device_mesh["data_parallel"]
        stages = [part for part in self.unet.modules() if isinstance(part, Stage)]
        shard(self.unet, mesh, stages, ("condition", "denoise"))
        if self.cond_stage_trainable:
            shard(self.cond_stage_model, mesh, (), ())
        for average, module, _ in self._averages():
            average.shard_like(module)

    def p_losses(
        self, x_start: Tensor, cond: Condition, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss at t (B,) for latents x_start (B, C, h, w), and its parts to log.

        |eps - eps_theta(xt, t, style, mask)|^2 (DDPM, equation 14), plus the attention loss where it is asked for.
        """
        noise = torch.randn_like(x_start) if noise is None else noise
        signal, sigma = self._levels(t)
        xt = signal * x_start + sigma * noise
        target = noise if self.parameterization == "eps" else signal * noise - sigma * x_start
        prepared = self.unet.condition(cond["context"], cond["y"], (xt.shape[-2], xt.shape[-1]))
        logits: list[Tensor] | None = [] if self.attn_loss_weight else None
        errors = (self.unet.denoise(xt, t, prepared, logits) - target).square().mean((1, 2, 3))  # (B,)
        simple = errors.mean()
        weighted = simple if self.loss_weights is None else (self.loss_weights[t] * errors).mean()
        split = "train" if self.training else "val"
        loss, log = weighted, {f"{split}/loss_simple": simple}
        if logits is not None:
            attention = self.attn_loss_weight * self._attention_loss(logits, cond["y"])
            loss, log[f"{split}/loss_attn"] = weighted + attention, attention
        log[f"{split}/loss"] = loss
        return loss, {name: value.detach() for name, value in log.items()}

    def _attention_loss(self, logits: list[Tensor], mask: Tensor) -> Tensor:
        """Compare each layer's logits (B, R, h, w) with the mask; sum over layers."""
        compare = F.mse_loss if self.attn_l2 else F.binary_cross_entropy_with_logits
        losses = [compare(layer, F.interpolate(mask, layer.shape[-2:], mode="nearest")) for layer in logits]
        return torch.stack(losses).sum()

    def conditions(
        self, batch: Batch, dropout: StyleDropout | None = None, draws: PictureDraws | None = None
    ) -> Condition:
        """Return styles and masks of a batch, some of them dropped if `dropout` says so, by `draws`."""
        image = self._image(batch)
        y = one_hot(batch["labels"], self.num_regions)
        if dropout is None:
            return {"context": self.get_learned_conditioning(image, y), "y": y}
        context, y = dropout(self.get_learned_conditioning, image, y, draws)
        return {"context": context, "y": y}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Measure the latents before the first step, where the YAML asks for it."""
        if self.scale_by_std and self.trainer.global_step == 0 and batch_idx == 0:
            self.scale_factor /= whole_batch(self._latent(batch)).std()

    def _image(self, batch: Batch) -> Tensor:
        """Return a batch's images (B, 3, H, W) in [-1, 1]; cached ones are uint8."""
        return as_unit(batch[self.first_stage_key])

    def _latent(self, batch: Batch) -> Tensor:
        """Return z0 (B, C, h, w) of a batch: cached, or encoded now."""
        if "latent" in batch:
            return self.scale_factor * batch["latent"]
        return self.encode_first_stage(self._image(batch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch at uniformly drawn timesteps."""
        z = self._latent(batch)
        draws = PictureDraws(self.turn, len(z), z.device)
        t, noise = draws.integers(len(self.schedule)), draws.normal(z.shape[1:]).to(z.dtype)
        cond = self.conditions(batch, self.dropout, draws)
        loss, log = self.p_losses(z, cond, t, noise)
        self.log_dict(log, batch_size=len(z), prog_bar=False)
        return loss

    @torch.no_grad()
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses with the raw and with the averaged weights, both at the same timesteps and noise."""
        self._evaluate(batch, batch_idx, "val")

    @torch.no_grad()
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log what `validation_step` logs, under test/."""
        self._evaluate(batch, batch_idx, "test")

    def _evaluate(self, batch: Batch, batch_idx: int, split: str) -> None:
        z = self._latent(batch)
        cond = self.conditions(batch)
        # Every validation draws the same, so that the losses of two epochs can be compared.
        (generator,) = seeded([batch_idx])
        t = torch.randint(len(self.schedule), (len(z),), generator=generator).to(z.device)
        noise = draw(z.shape, generator, z.device, z.dtype)
        _, log = self.p_losses(z, cond, t, noise)
        with self.ema_scope():
            averaged_cond = cond if self.cond_stage_ema is None else self.conditions(batch)
            _, averaged = self.p_losses(z, averaged_cond, t, noise)
        log |= {f"{name}_ema": value for name, value in averaged.items()}
        log = {name.replace("val/", f"{split}/"): value for name, value in log.items()}
        self.log_dict(log, batch_size=len(z), sync_dist=True)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then move the average: once per update, however many batches it gathers."""
        super().optimizer_step(*args, **kwargs)
        for average, module, _ in self._averages():
            average.update(module)

    def configure_optimizers(self) -> Any:
        """Return AdamW on the UNet and, if it is trained, the style encoder."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        parameters += [p for p in self.cond_stage_model.parameters() if p.requires_grad]
        if self.step_in_backward:
            return annealed(AdamWInBackward(parameters, lr=self.learning_rate), self.anneal_steps)
        # Lightning refuses to clip for the fused one in mixed precision, as if that always scaled gradients.
        clips = self._trainer is not None and self._trainer.gradient_clip_val
        fused = not (clips and "mixed" in str(self.trainer.precision))
        return annealed(torch.optim.AdamW(parameters, lr=self.learning_rate, fused=fused), self.anneal_steps)

    # --- pictures ---

    @torch.no_grad()
    def sample_images(self, cond: Condition, size: tuple[int, int], seeds: list[int], **how: Any) -> Tensor:
        """Sample images (B, 3, H, W) in [-1, 1] for `cond`, latents of `size`, from one seed per image."""
        generators = seeded(seeds)
        noise = draw((len(seeds), self.channels, *size), generators, self.device)
        ready = self.prepare(cond, size)
        how = {"steps": self.sample_steps, "solver": "ddim", **how}
        z = sample(
            lambda x, t: self.apply_model(x, t, ready), noise, self.schedule, generator=generators, **how
        )
        return self.decode_first_stage(z).clamp(-1, 1)

    @torch.no_grad()
    def log_images(self, batch: Batch, n: int) -> dict[str, Tensor]:
        """Return the columns of a picture grid for the first `n` images, (n, 3, H, W) in [-1, 1]."""
        image, labels = self._image(batch)[:n], batch["labels"][:n]
        z = self.encode_first_stage(image)
        size, seeds = (z.shape[-2], z.shape[-1]), list(range(len(image)))
        with self.ema_scope():
            cond = self.conditions({self.first_stage_key: image, "labels": labels})
            empty = self.get_learned_conditioning(torch.zeros_like(image), cond["y"])
        draws: dict[str, Callable[[], Tensor]] = {
            "its own style": lambda: cond["context"],
            "no style": lambda: empty,
            "neighbour's style": lambda: cond["context"].roll(-1, 0),
        }
        columns = {"input": image, "reconstruction": self.decode_first_stage(z).clamp(-1, 1)}
        with self.ema_scope():
            for title, style in draws.items():
                columns[title] = self.sample_images({**cond, "context": style()}, size, seeds)
        return columns


def _check_settings(
    conditioning_key: str,
    num_timesteps_cond: int,
    parameterization: str,
    zero_terminal_snr: bool,
    min_snr_gamma: float,
) -> None:
    """Raise ValueError for what nothing here can do."""
    if conditioning_key != "crossattn":
        raise ValueError(f"conditioning_key is {conditioning_key!r}; only 'crossattn' exists")
    if num_timesteps_cond != 1:
        raise ValueError(f"num_timesteps_cond is {num_timesteps_cond}; only 1 exists")
    if parameterization not in ("eps", "v"):
        raise ValueError(f"parameterization is {parameterization!r}; wanted 'eps' or 'v'")
    if zero_terminal_snr and parameterization != "v":
        raise ValueError("zero_terminal_snr: noise alone says nothing of eps; set parameterization to v")
    if min_snr_gamma < 0:
        raise ValueError(f"min_snr_gamma is {min_snr_gamma}; wanted 0 for none, or such as 5")


def _has(state_dict: Mapping[str, Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state_dict)


class _Wrapped(nn.Module):
    """Gives the UNet the name that checkpoints know it by."""

    def __init__(self, diffusion_model: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = diffusion_model
