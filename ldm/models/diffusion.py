"""Latent diffusion conditioned on region styles and a semantic mask: training and YAML interface."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor

from ldm.checkpoints.state_dict import load_weights
from ldm.data.images import as_unit
from ldm.data.labels import check_labels, one_hot
from ldm.data.transfer import to_device
from ldm.models.conditioning_dropout import StyleDropout
from ldm.models.diffusion_config import (
    EMASettings,
    InitialWeights,
    LossSettings,
    build_diffusion_process,
    build_networks,
    check_latents,
    check_published,
)
from ldm.models.latent_networks import Condition, LatentNetworks
from ldm.models.optimizers import OptimizerSettings
from ldm.models.per_sample_rng import BatchIndex, PerSampleRNG
from ldm.models.preview_grids import compare_styles, sample_from_seeds
from ldm.modules.distributed import shard, whole_batch
from ldm.modules.ema import EMA, EMAEntry, EMASet
from ldm.modules.unet_stages import Stage
from ldm.sampling.noise import draw, seeded

Batch = Mapping[str, Any]
# A label map gives each pixel at most one region. Checking that on the mask would synchronize with the GPU.
EXCLUSIVE = {"exclusive": True}


class LatentDiffusion(LatentNetworks):
    """First stage, style encoder and UNet; trains the UNet and, optionally, the style encoder.

    Args (the YAML's keys):
        first_stage_config, cond_stage_config, unet_config: targets of the three networks.
        linear_start, linear_end, timesteps: noise schedule.
        image_size, channels: side and channels of the latent.
        first_stage_key: batch entry that holds the image.
        conditioning_key: key of published YAMLs; only "crossattn" is supported.
        cond_stage_trainable: train the style encoder jointly with the UNet.
        probability_of_discard: probability of dropping all styles of a training image (style of an all-zero
            image).
        probability_of_region_discard: the same for each region independently, so that single regions can be
            sampled without a style.
        probability_of_mask_discard: probability of dropping style and mask (zeros). This is the published
            null condition of guidance, on which the published model is never trained.
        probability_of_other_shape: probability of reading the style from `other_image` with `other_labels`,
            the same appearance in another shape, as in style transfer; for data sets that provide them.
        attn_loss_weight: weight of the attention loss, for a UNet without mask attention.
        attn_l2: use a squared error instead of cross-entropy in the attention loss.
        parameterization: output of the UNet, "eps" (published) or "v" (arXiv 2202.00512), whose error stays
            bounded near pure noise; better for short runs. `apply_model` returns eps for either.
        min_snr_gamma: min-SNR timestep weighting (arXiv 2303.09556); 0 for uniform weights (published).
        zero_terminal_snr: rescale the schedule to end in pure noise (arXiv 2305.08891); needs
            `parameterization: v`.
        use_ema, ema_decay: keep an EMA of the UNet's weights.
        ema_style_encoder: keep an EMA of the style encoder too; published checkpoints have none.
        scale_factor: factor that latents are multiplied by.
        scale_by_std: set scale_factor so that the first training batch has unit variance, and store it.
        monitor: logged metric that selects the best checkpoint.
        sample_steps: DDIM steps of the preview grids.
        anneal_steps: length of the cosine decay of the learning rate to zero; 0 keeps it constant
            (published).
        warmup_steps: length of the linear warmup; null for 50 steps with `anneal_steps` and none without.
        channels_last: store convolution weights in channels-last memory format, which is faster on many
            devices.
        step_in_backward: run the optimizer inside the backward pass, which saves the memory of the gradients;
            incompatible with gradient clipping, accumulation and several processes.
        bf16_first_moment: with step_in_backward, keep AdamW's first moment in bfloat16.
        compile: compile the UNet with torch.compile for training, which costs minutes at the start and makes
            steps faster; true, or the name of a backend.
        ckpt_path: checkpoint to initialize the weights from.
        ignore_keys: patterns such as "cond_stage_model.*" of weights that are not loaded from `ckpt_path`,
            for networks of which only a part has changed, or with new layers; the EMA then restarts from the
            loaded weights.
        num_timesteps_cond, log_every_t: keys of published YAMLs without effect here.

    Raises:
        ValueError: an unknown setting, or settings that contradict each other.
    """

    learning_rate = 0.0  # set by main.py from base_learning_rate

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
        probability_of_other_shape: float = 0.0,
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
        warmup_steps: int | None = None,
        channels_last: bool = False,
        step_in_backward: bool = False,
        bf16_first_moment: bool = False,
        compile: bool | str = False,
        ckpt_path: str | None = None,
        ignore_keys: Sequence[str] | None = None,
        num_timesteps_cond: int = 1,
        log_every_t: int = 200,
    ) -> None:
        check_published(conditioning_key, num_timesteps_cond)
        optimization = OptimizerSettings(anneal_steps, warmup_steps, step_in_backward, bf16_first_moment)
        initial = InitialWeights.read(ckpt_path, ignore_keys)
        networks = build_networks(unet_config, first_stage_config, cond_stage_config, initial)
        check_latents(networks.unet, channels, image_size)
        process = build_diffusion_process(
            linear_start, linear_end, timesteps, zero_terminal_snr, parameterization
        )
        super().__init__(*networks, *process, scale_factor, store_scale=scale_by_std)
        self.image_size, self.channels, self.first_stage_key = image_size, channels, first_stage_key
        self.monitor, self.sample_steps = monitor, sample_steps
        self.measures_scale = scale_by_std and "scale_factor" not in initial.weights
        self.optimization, self.compiled_by = optimization, compile
        self.batch_index: BatchIndex | None = None  # set before each training batch by main.py's StepSeeding
        self.dropout = StyleDropout(
            probability_of_discard,
            probability_of_region_discard,
            probability_of_mask_discard,
            probability_of_other_shape,
        )
        loss = LossSettings(min_snr_gamma, attn_loss_weight, attn_l2)
        self.loss = loss.build(process, self.unet.use_mask_attn)
        self._freeze(cond_stage_trainable)
        self._create_emas(EMASettings(use_ema, ema_decay, ema_style_encoder))
        self._load_initial(initial, ema_decay)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def _freeze(self, cond_stage_trainable: bool) -> None:
        """Freeze the parameters that never receive a gradient."""
        self.unet.freeze_unused()
        self.cond_stage_model.requires_grad_(cond_stage_trainable)

    def _create_emas(self, ema: EMASettings) -> None:
        """Create the EMAs under the names of published checkpoints."""
        self.model_ema = EMA(self.model, ema.decay) if ema.unet else None
        both = ema.unet and ema.style_encoder
        self.cond_stage_ema = EMA(self.cond_stage_model, ema.decay) if both else None

    def _load_initial(self, initial: InitialWeights, ema_decay: float) -> None:
        """Load the initial weights, if any; EMAs, first stage and scale factor missing from them keep their values.

        The decay of the EMAs is this run's, not that of the weights.
        """
        if not (weights := initial.weights):
            return
        optional = ("model_ema.", "cond_stage_ema.", "first_stage_model.", "scale_factor")
        one_sided = [p for p in optional if not _has(weights, p) or not _has(self.state_dict(), p)]
        load_weights(self, weights, ignore_prefixes=[*one_sided, *initial.ignored(self.state_dict())])
        self._emas().restart_absent(weights)
        for ema, _, _ in self._emas():
            ema.decay.fill_(ema_decay)

    def _emas(self) -> EMASet:
        """Return the enabled EMAs."""
        entries = (
            (self.model_ema, self.model, "model_ema."),
            (self.cond_stage_ema, self.cond_stage_model, "cond_stage_ema."),
        )
        return EMASet(EMAEntry(ema, module, prefix) for ema, module, prefix in entries if ema is not None)

    def ema_scope(self) -> AbstractContextManager[None]:
        """Swap in the EMA weights, if there are any, for the duration of the context."""
        return self._emas().applied()

    # --- loss ---

    def p_losses(
        self, x_start: Tensor, cond: Condition, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss at t (B,) for latents x_start (B, C, h, w), and its parts to log.

        Mean squared error between the UNet's output and the target of the parameterization (eps: DDPM,
        equation 14; v: arXiv 2202.00512), weighted if `min_snr_gamma` is set, plus the optional attention
        loss.

        Args:
            x_start: scaled latents.
            cond: output of `conditions`.
            t: (B,) int64.
            noise: (B, C, h, w); None to sample it.
        """
        noise = torch.randn_like(x_start) if noise is None else noise
        levels = self._levels(t)
        xt = levels.mix(x_start, noise)
        prepared = self.prepare(cond, (xt.shape[-2], xt.shape[-1]))["prepared"]
        logits: list[Tensor] | None = [] if self.loss.attention_weight else None
        out = self._predict(xt, t, prepared, logits)
        target = self.parameterization.target(x_start, noise, levels)
        loss, parts = self.loss(out, target, t, logits, cond["y"])
        split = "train" if self.training else "val"
        return loss, {f"{split}/{name}": value for name, value in parts.items()}

    def conditions(
        self, batch: Batch, dropout: StyleDropout | None = None, rng: PerSampleRNG | None = None
    ) -> Condition:
        """Return styles and masks of a batch, with conditioning dropout if `dropout` is given, drawn from `rng`.

        Labels are not checked here: `on_before_batch_transfer` has checked those of Lightning's batches.
        """
        image = self._image(batch)
        y = one_hot(batch["labels"], self.num_regions, checked=True)
        if dropout is None:
            return {"context": self.get_learned_conditioning(image, y), "y": y}
        context, y = dropout(self.get_learned_conditioning, image, y, rng, batch)
        return {"context": context, "y": y}

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Check the labels on the host; on another device, the host would wait for it."""
        for name in ("labels", "other_labels"):
            # `DeviceLoader`, whose batches lie on the device, has checked them.
            if name in batch and batch[name].device.type == "cpu":
                check_labels(batch[name], self.num_regions)
        return batch

    # --- training and validation ---

    def configure_model(self) -> None:
        """Shard the trained networks and their EMAs if Lightning's strategy provides a device mesh."""
        if self.device_mesh is None:
            return
        mesh = self.device_mesh["data_parallel"]
        stages = [part for part in self.unet.modules() if isinstance(part, Stage)]
        shard(self.unet, mesh, stages, ("condition", "denoise"))
        if any(parameter.requires_grad for parameter in self.cond_stage_model.parameters()):
            shard(self.cond_stage_model, mesh, (), ())
        for average, module, _ in self._emas():
            average.shard_like(module)

    def on_fit_start(self) -> None:
        """Compile `UNet.denoise` if `compile` is set; `condition` branches on the mask and stays eager."""
        if self.compiled_by:  # the method, not the module, so that checkpoint keys do not change
            backend = self.compiled_by if isinstance(self.compiled_by, str) else "inductor"
            self.unet.denoise = torch.compile(self.unet.denoise, backend=backend)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the scale factor from the first batch if `scale_by_std` is set."""
        if self.measures_scale and self.trainer.global_step == 0 and batch_idx == 0:
            self.scale_factor /= whole_batch(self._latent(batch)).std()

    def _image(self, batch: Batch) -> Tensor:
        """Return a batch's images (B, 3, H, W) in [-1, 1]; cached ones are uint8."""
        return as_unit(batch[self.first_stage_key])

    def _latent(self, batch: Batch) -> Tensor:
        """Return the scaled latents z0 (B, C, h, w) of a batch, cached or encoded."""
        if "latent" in batch:
            return self.scale_factor * batch["latent"]
        return self.encode_first_stage(self._image(batch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch at uniformly sampled timesteps."""
        z = self._latent(batch)
        rng = PerSampleRNG(self.batch_index, len(z), z.device)
        t, noise = rng.integers(len(self.schedule)), rng.normal(z.shape[1:])
        cond = {**self.conditions(batch, self.dropout, rng), **EXCLUSIVE}
        loss, log = self.p_losses(z, cond, t, noise)
        self.log_dict(log, batch_size=len(z), prog_bar=False)
        return loss

    @torch.no_grad()
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses of the raw and of the EMA weights (suffix `_ema`) at the same timesteps and noise."""
        self._evaluate(batch, batch_idx, "val")

    @torch.no_grad()
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the metrics of `validation_step` under test/."""
        self._evaluate(batch, batch_idx, "test")

    def _evaluate(self, batch: Batch, batch_idx: int, split: str) -> None:
        z = self._latent(batch)
        cond = {**self.conditions(batch), **EXCLUSIVE}
        # Fixed timesteps and noise make the losses of different epochs comparable.
        (generator,) = seeded([batch_idx])
        t = to_device(torch.randint(len(self.schedule), (len(z),), generator=generator), z.device)
        noise = draw(z.shape, generator, z.device, z.dtype)
        _, log = self.p_losses(z, cond, t, noise)
        with self.ema_scope():
            ema_cond = cond if self.cond_stage_ema is None else {**self.conditions(batch), **EXCLUSIVE}
            _, ema_log = self.p_losses(z, ema_cond, t, noise)
        log |= {f"{name}_ema": value for name, value in ema_log.items()}
        log = {name.replace("val/", f"{split}/"): value for name, value in log.items()}
        self.log_dict(log, batch_size=len(z), sync_dist=True)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimizer, then update the EMAs once, also with gradient accumulation."""
        super().optimizer_step(*args, **kwargs)
        self._emas().update()

    def configure_optimizers(self) -> Any:
        """Return AdamW for the UNet and, if trainable, the style encoder."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        parameters += [p for p in self.cond_stage_model.parameters() if p.requires_grad]
        # Fused AdamW removes the scale of a loss itself, after the gradients are clipped.
        clips = self._trainer is not None and self._trainer.gradient_clip_val
        fused = not (clips and self.trainer.precision == "16-mixed")
        return self.optimization.build(parameters, self.learning_rate, fused)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip gradients, also for fused AdamW in bfloat16, which Lightning refuses even without a loss scale."""
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # --- samples ---

    @torch.no_grad()
    def sample_images(
        self, cond: Condition, size: tuple[int, int], seeds: list[int], **options: Any
    ) -> Tensor:
        """Sample images (B, 3, H, W) in [-1, 1] for `cond` with latents of `size` = (h, w), one seed per image.

        `options` are keyword arguments of `ldm.sampling.sample`: steps, solver, eta, spacing.
        """
        options = {"steps": self.sample_steps, "solver": "ddim", **options}
        return sample_from_seeds(self, cond, (self.channels, *size), seeds, options)

    @torch.no_grad()
    def log_images(self, batch: Batch, n: int) -> dict[str, Tensor]:
        """Return the columns of the preview grid for the first `n` images, (n, 3, H, W) in [-1, 1], by title."""
        image, labels = self._image(batch)[:n], batch["labels"][:n]
        with self.ema_scope():
            cond = self.conditions({self.first_stage_key: image, "labels": labels})
            return compare_styles(self, image, cond, {"steps": self.sample_steps, "solver": "ddim"})


def _has(state_dict: Mapping[str, Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state_dict)
