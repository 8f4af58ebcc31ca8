"""Networks, noise schedule and loss of a diffusion model, built from the keys of its YAML."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.state_dict import has_first_stage
from ldm.models.denoising_loss import DenoisingLoss, Parameterization, min_snr_weights
from ldm.sampling import NoiseSchedule
from ldm.targets import instantiate_from_config


class Networks(NamedTuple):
    """The three networks, in the order of their random initialization."""

    unet: nn.Module
    first_stage: nn.Module
    style_encoder: nn.Module


class DiffusionProcess(NamedTuple):
    """Noise schedule, and parameterization of the network's output (eps or v)."""

    schedule: NoiseSchedule
    parameterization: Parameterization


class InitialWeights(NamedTuple):
    """Initial weights of a training.

    Attributes:
        path: the checkpoint, None for random weights.
        weights: those to load, by key; empty without a path.
        ignore_keys: patterns of weights that keep their random values.
        unmatched: those patterns that match no weight of the checkpoint.
    """

    path: str | None
    weights: Mapping[str, Tensor]
    ignore_keys: Sequence[str]
    unmatched: Sequence[str]

    @classmethod
    def read(cls, path: str | None, ignore_keys: Sequence[str] | None) -> Self:
        """Read the initial weights without those that match `ignore_keys`.

        With `ignore_keys` the EMAs are left out too, because they average the ignored weights. Warns about
        `ignore_keys` without a path.

        Raises:
            CheckpointError: a file that cannot be read.
        """
        if path is None and ignore_keys:
            warnings.warn("ignore_keys has no effect without ckpt_path", stacklevel=3)
        weights = {} if path is None else dict(read_checkpoint(path).state_dict)
        if not weights or not ignore_keys:
            return cls(path, weights, (), ())
        unmatched = [
            pattern for pattern in ignore_keys if not any(matches(key, [pattern]) for key in weights)
        ]
        averages = ("model_ema.*", "cond_stage_ema.*")
        kept = {key: value for key, value in weights.items() if not matches(key, [*ignore_keys, *averages])}
        return cls(path, kept, ignore_keys, unmatched)

    def ignored(self, keys: Collection[str]) -> list[str]:
        """Return those keys of a model that keep their random values.

        Raises:
            ValueError: a pattern that matches neither a key of the model nor a weight of the checkpoint.
        """
        idle = [pattern for pattern in self.unmatched if not any(matches(key, [pattern]) for key in keys)]
        if idle:
            raise ValueError(
                f"ignore_keys: no weight of {self.path} or of the model matches {', '.join(idle)}; correct or "
                "remove the pattern"
            )
        return [key for key in keys if matches(key, self.ignore_keys)]


def matches(key: str, patterns: Sequence[str]) -> bool:
    """Return whether a weight's name matches one of the shell-style patterns."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def build_networks(
    unet: Mapping[str, Any],
    first_stage: Mapping[str, Any],
    style_encoder: Mapping[str, Any],
    initial: InitialWeights,
) -> Networks:
    """Build the networks of three configs `{target, params}`.

    If the initial weights contain the first stage, its own checkpoint is not read and need not exist.

    Raises:
        ValueError: the style encoder's codes do not fit the UNet.
    """
    if has_first_stage(initial.weights):
        first_stage = {**first_stage, "params": {**first_stage["params"], "ckpt_path": None}}
    networks = Networks(*(instantiate_from_config(config) for config in (unet, first_stage, style_encoder)))
    _check_codes(networks.unet, networks.style_encoder)
    return networks


def _check_codes(unet: Any, style_encoder: Any) -> None:
    """Check that the style codes fit the UNet; third-party encoders may not declare their shapes."""
    made, taken = getattr(style_encoder, "style_dim", None), unet.context_dim
    if made not in (None, taken):
        raise ValueError(
            f"cond_stage_config produces codes of size {made}, but unet_config.params.context_dim is {taken}; "
            "make them equal"
        )
    made, taken = getattr(style_encoder, "grid", None), unet.style_grid
    if made not in (None, taken):
        raise ValueError(
            f"cond_stage_config has a style grid of {made}x{made} cells, but unet_config.params.style_grid is {taken}; "
            "make them equal"
        )
    made, taken = getattr(style_encoder, "region_frames", None), unet.region_frames
    if made not in (None, taken):
        raise ValueError(
            f"cond_stage_config has the region frames {made}, but unet_config.params.region_frames is {taken}; "
            "make them equal"
        )


def check_latents(unet: Any, channels: int, image_size: int) -> None:
    """Check the model's channels and side of the latents against the UNet's.

    Raises:
        ValueError: other channels. Another side warns: it is only a default.
    """
    taken, side = getattr(unet, "in_channels", channels), getattr(unet, "image_size", image_size)
    if taken != channels:
        raise ValueError(
            f"channels is {channels}, but unet_config.params.in_channels is {taken}; make them equal"
        )
    if side != image_size:
        warnings.warn(
            f"image_size is {image_size}, but unet_config.params.image_size is {side}; make them equal",
            stacklevel=3,
        )


def build_diffusion_process(
    linear_start: float, linear_end: float, timesteps: int, zero_terminal_snr: bool, parameterization: str
) -> DiffusionProcess:
    """Return the noise schedule and the parameterization.

    Raises:
        ValueError: an unknown parameterization, or eps with zero_terminal_snr.
    """
    process = DiffusionProcess(
        NoiseSchedule.scaled_linear(linear_start, linear_end, timesteps), Parameterization(parameterization)
    )
    if not zero_terminal_snr:
        return process
    if parameterization != "v":
        raise ValueError(
            "zero_terminal_snr: x0 cannot be recovered from eps at pure noise; set parameterization: v"
        )
    return process._replace(schedule=process.schedule.zero_terminal_snr())


@dataclass(frozen=True)
class LossSettings:
    """Settings of the training loss.

    Attributes:
        min_snr_gamma: min-SNR timestep weighting; 0 for uniform weights.
        attention_weight: weight of the attention loss.
        attention_l2: use a squared error in it instead of cross-entropy.
    """

    min_snr_gamma: float = 0.0
    attention_weight: float = 0.0
    attention_l2: bool = False

    def build(self, process: DiffusionProcess, use_mask_attn: bool) -> DenoisingLoss:
        """Return the training loss.

        Raises:
            ValueError: a negative gamma, or an attention loss with mask attention, which has no logits.
        """
        if self.attention_l2 and not self.attention_weight:
            warnings.warn("attn_l2 has no effect while attn_loss_weight is 0", stacklevel=3)
        if use_mask_attn and self.attention_weight:
            raise ValueError(
                f"attn_loss_weight is {self.attention_weight}, but use_mask_attn computes no attention logits; "
                "set attn_loss_weight: 0 or use_mask_attn: false"
            )
        weights, gamma = None, self.min_snr_gamma
        if gamma and process.schedule.alpha_bar[-1] < 1e-6:
            warnings.warn(
                "min_snr_gamma gives the last timestep of zero_terminal_snr the weight 0, so v is never trained at "
                "pure noise, where sampling starts; set min_snr_gamma: 0 or zero_terminal_snr: false",
                stacklevel=3,
            )
        if gamma:
            weights = min_snr_weights(process.schedule.alpha_bar, gamma, process.parameterization.name)
        return DenoisingLoss(weights, self.attention_weight, self.attention_l2)


@dataclass(frozen=True)
class EMASettings:
    """Settings of the EMAs.

    Attributes:
        unet: keep an EMA of the UNet; if false, `style_encoder` has no effect either.
        decay: weight of the old average at each step.
        style_encoder: keep an EMA of the style encoder too.
    """

    unet: bool = True
    decay: float = 0.9999
    style_encoder: bool = False

    def __post_init__(self) -> None:
        if self.style_encoder and not self.unet:
            warnings.warn("ema_style_encoder has no effect while use_ema is false", stacklevel=4)


def check_published(conditioning_key: str, num_timesteps_cond: int) -> None:
    """Raise ValueError for unsupported values of published keys."""
    if conditioning_key != "crossattn":
        raise ValueError(f"conditioning_key must be 'crossattn', got {conditioning_key!r}")
    if num_timesteps_cond != 1:
        raise ValueError(f"num_timesteps_cond must be 1, got {num_timesteps_cond}")
