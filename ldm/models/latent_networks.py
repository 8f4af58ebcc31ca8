"""First stage, style encoder, UNet and noise schedule: everything that sampling needs."""

from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ldm.models.denoising_loss import Levels, Parameterization
from ldm.modules.layers import full_precision
from ldm.modules.precision import bfloat16_is_faster, training_in_bfloat16_is_faster
from ldm.sampling import NoiseSchedule

LARGE = 32  # for larger latents, networks are slow, and wide enough to be measured on a small latent

# "context" (B, R, D), "y" (B, R, H, W); "exclusive": True for a y that is known to have at most one region per pixel;
# after `prepare` also "prepared".
Condition = dict[str, Any]


class LatentNetworks(pl.LightningModule):
    """First stage, style encoder and UNet.

    Attribute names match the published checkpoints. Under autocast, the networks compute in half precision,
    and their outputs are converted to float32.

    Args:
        unet, first_stage, style_encoder: the networks. The first stage is frozen.
        schedule: noise schedule; its tables are stored in checkpoints.
        parameterization: output of the UNet. `apply_model` returns eps for either.
        scale_factor: factor that latents are multiplied by.
        store_scale: store the factor in checkpoints; published checkpoints have no such key.
    """

    def __init__(
        self,
        unet: nn.Module,
        first_stage: nn.Module,
        style_encoder: nn.Module,
        schedule: NoiseSchedule,
        parameterization: Parameterization,
        scale_factor: float,
        store_scale: bool,
    ) -> None:
        super().__init__()
        self.schedule, self.parameterization = schedule, parameterization
        self.scale_factor: Tensor
        self.register_buffer("scale_factor", torch.tensor(float(scale_factor)), persistent=store_scale)
        for name, buffer in schedule.buffers().items():
            self.register_buffer(name, buffer)
        self.model = _Wrapped(unet)
        self.first_stage_model: Any = first_stage.requires_grad_(False).eval()
        self.cond_stage_model = style_encoder

    @property
    def unet(self) -> Any:
        """The denoising network."""
        return self.model.diffusion_model

    @property
    def num_regions(self) -> int:
        """R, the number of regions."""
        return self.unet.num_regions

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; the first stage always stays in evaluation mode."""
        super().train(mode)
        self.first_stage_model.eval()
        return self

    @torch.no_grad()
    def encode_first_stage(self, image: Tensor) -> Tensor:
        """Map image (B, 3, H, W) in [-1, 1] to the latent z0 (B, C, h, w)."""
        return self.scale_factor * full_precision(self.first_stage_model.encode(image))

    @torch.no_grad()
    def decode_first_stage(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        """Quantize and decode a latent (B, C, h, w) to an image (B, 3, H, W) in about [-1, 1]."""
        image = self.first_stage_model.decode(z / self.scale_factor, force_not_quantize=force_not_quantize)
        return full_precision(image)

    def get_learned_conditioning(self, image: Tensor, y: Tensor) -> Tensor:
        """Return the style codes (B, R, D) of image (B, 3, H, W) with the mask y (B, R, H, W)."""
        return full_precision(self.cond_stage_model(image, y))

    def prepare(self, cond: Condition, size: tuple[int, int]) -> Condition:
        """Add the step-independent conditioning of the UNet to `cond`, for latents of `size`."""
        exclusive = {"exclusive": True} if cond.get("exclusive") else {}
        return {**cond, "prepared": self.unet.condition(cond["context"], cond["y"], size, **exclusive)}

    def apply_model(self, x: Tensor, t: Tensor, cond: Condition) -> Tensor:
        """Predict the noise in x (B, C, h, w) at t (B,) given {"context": (B, R, D), "y": (B, R, H, W)}."""
        if "prepared" not in cond:
            cond = self.prepare(cond, (x.shape[-2], x.shape[-1]))
        return self.parameterization.eps(self._predict(x, t, cond["prepared"]), x, self._levels(t))

    def _predict(
        self, x: Tensor, t: Tensor, prepared: Any, attention_logits: list[Tensor] | None = None
    ) -> Tensor:
        """Return the UNet's output (B, C, h, w) in float32."""
        return full_precision(self.unet.denoise(x, t, prepared, attention_logits))

    def bfloat16_is_faster(self) -> bool:
        """Return whether a sampling step is clearly faster under bfloat16 autocast, measured on a small latent."""
        unet, training = self.unet, self.unet.training
        x, t, style, y = self._example(1, self._small_side())
        prepared: dict[bool, Any] = {}

        def step() -> None:
            half = torch.is_autocast_enabled(self.device.type)
            if half not in prepared:  # sampling prepares once per image
                prepared[half] = unet.condition(style, y, x.shape[-2:])
            unet.denoise(x, t, prepared[half])

        unet.eval()  # dropout would advance the random state
        try:
            with torch.no_grad():
                return bfloat16_is_faster(step, self.device)
        finally:
            unet.train(training)

    def trains_faster_in_bfloat16(self, batch_size: int = 1) -> bool:
        """Return whether a training step of the UNet is clearly faster under bfloat16 autocast.

        Measured on the batch that is trained on a GPU, which small ones do not fill; on one small latent on a
        CPU.
        """
        on_gpu = self.device.type == "cuda"
        example = (
            self._example(batch_size, self.unet.image_size)
            if on_gpu
            else self._example(1, self._small_side())
        )
        return training_in_bfloat16_is_faster(self.unet, lambda: self.unet(*example), self.device)

    def _small_side(self) -> int:
        """Return the side of a latent that is fast and large enough to measure, at most 32 for usual UNets."""
        return self.unet.image_size if self.unet.image_size <= LARGE else 2 * self.unet.factor

    def _example(self, count: int, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return inputs of the UNet: x (B, C, side, side), t (B,), style (B, R, D), mask (B, R, side, side)."""
        unet, R = self.unet, self.num_regions
        x = torch.zeros(count, unet.in_channels, side, side, device=self.device)
        t = torch.zeros(count, dtype=torch.long, device=self.device)
        y = torch.eye(R, device=self.device)[:1, :, None, None].expand(count, -1, side, side)
        return x, t, x.new_zeros(count, R, unet.context_dim), y

    def _levels(self, t: Tensor) -> Levels:
        """Return the signal and noise levels at t (B,)."""
        tables = self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod
        return Levels(*(table[t][:, None, None, None] for table in tables))  # type: ignore[index]


class _Wrapped(nn.Module):
    """Holds the UNet under its name in published checkpoints."""

    def __init__(self, diffusion_model: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = diffusion_model
