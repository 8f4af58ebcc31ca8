"""What the keys of a diffusion's YAML ask for: its networks, its noise, its loss."""

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.state_dict import has_first_stage
from ldm.models.denoising_loss import DenoisingLoss, Parameterization, min_snr_weights
from ldm.sampling import NoiseSchedule
from ldm.targets import instantiate_from_config


class Networks(NamedTuple):
    """The three networks, in the order in which they draw their first weights."""

    unet: nn.Module
    first_stage: nn.Module
    style_encoder: nn.Module


class Noise(NamedTuple):
    """How much noise there is at each timestep, and what the network says of it."""

    schedule: NoiseSchedule
    parameterization: Parameterization


def read_start(path: str | None, ignore_keys: Sequence[str] | None) -> dict[str, Tensor]:
    """Return the weights to start from, none without a path, less those that patterns name.

    If any are left out the averages are, too: they are of the weights as they were.

    Raises:
        ValueError: patterns that name nothing.
        CheckpointError: a file that cannot be read.
    """
    weights = {} if path is None else dict(read_checkpoint(path).state_dict)
    if not weights or not ignore_keys:
        return weights
    if idle := [pattern for pattern in ignore_keys if not any(matches(key, [pattern]) for key in weights)]:
        raise ValueError(
            f"ignore_keys: no weight of {path} is named like {', '.join(idle)}; mend or remove it"
        )
    averages = ("model_ema.*", "cond_stage_ema.*")
    return {key: value for key, value in weights.items() if not matches(key, [*ignore_keys, *averages])}


def matches(key: str, patterns: Sequence[str] | None) -> bool:
    """Tell whether a weight's name is like one of the patterns, in which * stands for anything."""
    return any(fnmatchcase(key, pattern) for pattern in patterns or ())


def build_networks(
    unet: Mapping[str, Any],
    first_stage: Mapping[str, Any],
    style_encoder: Mapping[str, Any],
    start: Mapping[str, Tensor],
) -> Networks:
    """Build the networks of three configs `{target, params}`.

    Where the weights to start from hold the first stage, its own file is not read and need not exist.

    Raises:
        ValueError: the style encoder's codes are not what the UNet takes.
    """
    if has_first_stage(start):
        first_stage = {**first_stage, "params": {**first_stage["params"], "ckpt_path": None}}
    networks = Networks(*(instantiate_from_config(config) for config in (unet, first_stage, style_encoder)))
    _check_codes(networks.unet, networks.style_encoder)
    return networks


def _check_codes(unet: Any, style_encoder: Any) -> None:
    """Compare the codes that are made with those that are taken; encoders of others may not say what they make."""
    made, taken = getattr(style_encoder, "style_dim", None), unet.context_dim
    if made not in (None, taken):
        raise ValueError(
            f"cond_stage_config makes codes of {made} numbers, unet_config.params.context_dim is {taken}; "
            "make them equal"
        )
    made, taken = getattr(style_encoder, "grid", None), unet.style_grid
    if made not in (None, taken):
        raise ValueError(
            f"cond_stage_config makes codes of {made}x{made} places, unet_config.params.style_grid is {taken}; "
            "make them equal"
        )
    made, taken = getattr(style_encoder, "frames", None), unet.style_frames
    if made not in (None, taken):
        raise ValueError(
            f"cond_stage_config makes codes whose places lie in the frames {made}, "
            f"unet_config.params.style_frames is {taken}; make them equal"
        )


def make_noise(
    linear_start: float, linear_end: float, timesteps: int, zero_terminal_snr: bool, parameterization: str
) -> Noise:
    """Return the noise schedule and the meaning of the network's output.

    Raises:
        ValueError: an unknown parameterization, or one that pure noise says nothing of.
    """
    noise = Noise(
        NoiseSchedule.scaled_linear(linear_start, linear_end, timesteps), Parameterization(parameterization)
    )
    if not zero_terminal_snr:
        return noise
    if parameterization != "v":
        raise ValueError("zero_terminal_snr: noise alone says nothing of eps; set parameterization to v")
    return noise._replace(schedule=noise.schedule.zero_terminal_snr())


def make_loss(
    noise: Noise, min_snr_gamma: float, attn_loss_weight: float, attn_l2: bool, use_mask_attn: bool
) -> DenoisingLoss:
    """Return what training minimises.

    Raises:
        ValueError: a negative gamma, or a loss for an attention that has no logits.
    """
    if attn_l2 and not attn_loss_weight:
        warnings.warn("attn_l2 has no effect while attn_loss_weight is 0", stacklevel=3)
    if use_mask_attn and attn_loss_weight:
        raise ValueError(
            f"attn_loss_weight is {attn_loss_weight}, but with use_mask_attn there are no logits to guide; "
            "set one of them to 0 or false"
        )
    if min_snr_gamma and noise.schedule.alpha_bar[-1] < 1e-6:
        warnings.warn(
            "min_snr_gamma leaves the last timestep of zero_terminal_snr without weight: v is never learnt from pure "
            "noise, where sampling starts; set one of them to 0 or false",
            stacklevel=3,
        )
    weights = None
    if min_snr_gamma:
        weights = min_snr_weights(noise.schedule.alpha_bar, min_snr_gamma, noise.parameterization.name)
    return DenoisingLoss(weights, attn_loss_weight, attn_l2)


def check_published(conditioning_key: str, num_timesteps_cond: int) -> None:
    """Raise ValueError for values of the published keys that nothing here can do."""
    if conditioning_key != "crossattn":
        raise ValueError(f"conditioning_key is {conditioning_key!r}; only 'crossattn' exists")
    if num_timesteps_cond != 1:
        raise ValueError(f"num_timesteps_cond is {num_timesteps_cond}; only 1 exists")


def check_optimizer(step_in_backward: bool, half_first_moment: bool) -> None:
    """Raise ValueError for an option of the optimiser without the optimiser."""
    if half_first_moment and not step_in_backward:
        raise ValueError(
            "half_first_moment is true, but only the optimiser of step_in_backward has it; set both, or neither"
        )
