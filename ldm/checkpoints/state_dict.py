"""Fit a state dict to a model: EMA copies, the first stage, and what does not match, with the likely cause."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoints.errors import CheckpointError

MODEL, EMA, FIRST_STAGE = "model.", "model_ema.", "first_stage_model."
STYLE_ENCODER, STYLE_EMA = "cond_stage_model.", "cond_stage_ema."
SHOWN = 10  # keys of each kind in a message; the rest is counted
VQ_F4 = "VQ-F4, model.ckpt in https://ommer-lab.com/files/latent-diffusion/vq-f4.zip"

Shape = tuple[int, ...]
Mismatch = tuple[str, Shape, Shape]  # key, shape in the file, shape in the model

# Where the shape of a key that ends so differs in this dimension, this setting differs.
SETTINGS: tuple[tuple[str, int, str], ...] = (
    ("mlp_shared.0.weight", 1, "number of regions (num_classes, num_mask_channels)"),
    ("label_emb.weight", 0, "number of regions (num_classes, num_mask_channels)"),
    ("quantize.embedding.weight", 0, "codebook size (n_embed)"),
    ("quantize.embedding.weight", 1, "codebook width (embed_dim)"),
    ("time_embed.0.weight", 1, "UNet width (model_channels)"),
    ("attn2.to_k.weight", 1, "style size (context_dim)"),
    ("input_blocks.0.0.weight", 1, "number of latent channels (in_channels)"),
    (
        "Encoder.first_layer.0.weight",
        0,
        "number of regions times style encoder width (num_mask_channels, num_feat)",
    ),
    ("encoder.conv_in.weight", 0, "first-stage width (ddconfig.ch)"),
    ("betas", 0, "number of diffusion steps (timesteps)"),
)


def load_weights(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    strict: bool = True,
    ignore_prefixes: Sequence[str] = (),
) -> None:
    """Copy weights into a module; all or, on an error, none.

    Args:
        module: receives the weights, converted to its own dtypes and device.
        state_dict: tensors by key.
        strict: every key must be on both sides. A shape that differs is an error either way.
        ignore_prefixes: keys that begin so may be missing on either side.

    Raises:
        CheckpointError: missing, unexpected or misshaped keys, with the likely reason; NaN or infinity.
    """
    common = fitting(module, state_dict, strict=strict, ignore_prefixes=ignore_prefixes)
    check_finite(common)
    module.load_state_dict(common, strict=False)


def fitting(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    strict: bool = True,
    ignore_prefixes: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Return the weights that a module has a place for, by their names, shapes and types; see `load_weights`.

    Raises:
        CheckpointError: missing, unexpected or misshaped keys, with the likely reason; integers for floats.
    """
    wanted = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    ignored = tuple(ignore_prefixes)
    missing = [key for key in wanted if key not in state_dict and not key.startswith(ignored)]
    unexpected = [key for key in state_dict if key not in wanted and not key.startswith(ignored)]
    common = {key: state_dict[key] for key in wanted if key in state_dict}
    misshaped = [
        (key, tuple(value.shape), tuple(wanted[key].shape))
        for key, value in common.items()
        if value.shape != wanted[key].shape
    ]
    if misshaped or (strict and (missing or unexpected)):
        raise CheckpointError(
            _explain(type(module).__name__, wanted, state_dict, missing, unexpected, misshaped)
        )
    strange = [
        f"{key} is {value.dtype}, expected a kind of {wanted[key].dtype}"
        for key, value in common.items()
        if not _converts(value.dtype, wanted[key].dtype)
    ]
    if strange:
        raise CheckpointError(f"{len(strange)} weights are of another kind of number: {listed(strange)}")
    return common


def _converts(found: torch.dtype, expected: torch.dtype) -> bool:
    """Tell whether numbers of a type can stand for those of another; integers for weights are quantised ones.

    Floats for integers are counters in a file that somebody has converted as a whole.
    """
    return (
        found == expected
        or found.is_floating_point
        or not (expected.is_floating_point or found.is_complex or found == torch.bool)
    )


def check_finite(state_dict: Mapping[str, Tensor]) -> None:
    """Raise unless every number is finite.

    Raises:
        CheckpointError: NaN or infinity; names the first keys that have them.
    """
    bad = [key for key, value in state_dict.items() if not _is_finite(value)]
    if bad:
        raise CheckpointError(
            f"NaN or infinity in {len(bad)} of {len(state_dict)} weights: {listed(bad)}. The training "
            "diverged, or half precision overflowed; take an earlier checkpoint"
        )


def use_ema_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with every `model.*` weight replaced by its moving average.

    The average of `model.a.b.weight` is stored as `model_ema.abweight`: its name below `model.` without dots. The
    same for the style encoder, `cond_stage_model.*` and `cond_stage_ema.*`, where it has averages; published
    checkpoints have none.

    Raises:
        CheckpointError: there are no averages, or not for every weight.
    """
    if not has_ema(state_dict):
        raise CheckpointError(
            "the checkpoint has no EMA weights (model_ema.*): it was trained with use_ema: false, or saved "
            'without them; use weights="raw"'
        )
    averages = {
        key: average + key.removeprefix(part).replace(".", "")
        for part, average in ((MODEL, EMA), (STYLE_ENCODER, STYLE_EMA))
        if any(name.startswith(average) for name in state_dict)
        for key in state_dict
        if key.startswith(part)
    }
    if len(set(averages.values())) < len(averages):
        raise CheckpointError(
            'two weights share the name of their EMA copy, so neither is known; use weights="raw"'
        )
    without = [
        key
        for key, average in averages.items()
        if average not in state_dict or state_dict[average].shape != state_dict[key].shape
    ]
    if without:
        raise CheckpointError(
            f"{len(without)} of {len(averages)} weights have no EMA copy of their shape: {listed(without)}. "
            'The checkpoint is incomplete; use weights="raw" or get it again'
        )
    return {key: state_dict[averages.get(key, key)] for key in state_dict}


def select_prefix(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights of one part, such as `first_stage_model.`, under the part's own names."""
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def has_ema(state_dict: Mapping[str, Tensor]) -> bool:
    """Tell whether moving averages of the weights are among these."""
    return any(key.startswith(EMA) for key in state_dict)


def has_first_stage(state_dict: Mapping[str, Tensor]) -> bool:
    """Tell whether the first stage's weights are among these."""
    return any(key.startswith(FIRST_STAGE) for key in state_dict)


def without_first_stage_file(
    model_config: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return the model's config such that the first stage's own file is read only where it is needed.

    Args:
        model_config: `{target, params: {first_stage_config: {target, params: {ckpt_path, ...}}, ...}}`.
        state_dict: the checkpoint's weights; where it has the first stage, `ckpt_path` is taken out.

    Raises:
        CheckpointError: neither the checkpoint nor a file has the first stage; says what is wanted where.
    """
    config = plain(model_config)
    first_stage = (config.get("params") or {}).get("first_stage_config")
    if not isinstance(first_stage, dict):
        return config
    params = first_stage.get("params") or {}
    if has_first_stage(state_dict):
        params.pop("ckpt_path", None)
        return config
    path = params.get("ckpt_path")
    if path is None or not Path(path).exists():
        where = "no ckpt_path is set in first_stage_config" if path is None else f"{path} does not exist"
        raise CheckpointError(
            f"the checkpoint has no first stage (first_stage_model.*), and {where}. For the published "
            f"models put the weights of {VQ_F4}, at {path or 'a place of your choice and set ckpt_path to it'}"
        )
    return config


def plain(config: Any) -> Any:
    """Return a copy of a config, OmegaConf's included, made of dictionaries and lists."""
    if isinstance(config, Mapping):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):
        return [plain(value) for value in config]
    return config


def _is_finite(value: Tensor) -> bool:
    """Tell whether a tensor has neither NaN nor infinity, in one pass and without a copy."""
    if value.numel() == 0 or not (value.is_floating_point() or value.is_complex()):
        return True
    if value.is_complex():
        return bool(torch.isfinite(value).all())
    if value.dtype.itemsize == 1:
        value = value.float()  # the minimum of 8-bit floats is not implemented
    return all(
        bool(torch.isfinite(bound)) for bound in torch.aminmax(value)
    )  # NaN passes through to both bounds


def listed(keys: Sequence[str]) -> str:
    """Return the first keys, for a message, and how many more there are."""
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


def _explain(
    name: str,
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    missing: Sequence[str],
    unexpected: Sequence[str],
    misshaped: Sequence[Mismatch],
) -> str:
    """Return the message for weights that do not fit."""
    lines = [f"these weights do not fit {name}:"]
    if missing:
        lines.append(f"  {len(missing)} of its {len(wanted)} keys are missing in the file: {listed(missing)}")
    if unexpected:
        lines.append(f"  {len(unexpected)} keys of the file are unknown to it: {listed(unexpected)}")
    if misshaped:
        shapes = [f"{key} is {list(found)}, wanted {list(want)}" for key, found, want in misshaped]
        lines.append(f"  {len(misshaped)} keys have another shape: {listed(shapes)}")
    reasons = _reasons(wanted, given, missing, unexpected, misshaped)
    lines += [
        f"  Likely reason: {reason}" for reason in reasons or ["the file belongs to another model or config"]
    ]
    return "\n".join(lines)


def _reasons(
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    missing: Sequence[str],
    unexpected: Sequence[str],
    misshaped: Sequence[Mismatch],
) -> list[str]:
    """Guess why, and say what to do: the most telling first; empty where nothing is recognised."""
    if not given:
        return ["the file holds no weights at all; get it again"]
    if missing and (reason := _prefix_reason(wanted, given)):
        return [reason]
    return _part_reasons(missing, unexpected) + _setting_reasons(misshaped)


def _prefix_reason(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Explain keys that fit once a prefix is put in front or taken away."""
    for prefix in _prefixes(given):
        stripped = [key.removeprefix(prefix) for key in given if key.startswith(prefix)]
        if all(key in wanted for key in stripped) and not any(key in wanted for key in given):
            whole = len(stripped) == len(given)
            kind = "were saved from a wrapped model" if whole else "belong to a larger model"
            return f'the keys {kind}: {prefix}* fits. Use select_prefix(state_dict, "{prefix}")'
    for prefix in _prefixes(wanted):
        if all(prefix + key in wanted for key in given):
            part = "the first stage" if prefix == FIRST_STAGE else f"the part {prefix.removesuffix('.')}"
            mend = (
                "set first_stage_config's ckpt_path to it"
                if prefix == FIRST_STAGE
                else f"put {prefix} in front"
            )
            return (
                f"these look like the weights of {part} alone; {mend}, and give the whole model's file here"
            )
    return None


def _prefixes(keys: Mapping[str, Tensor]) -> list[str]:
    """Return every leading part of the keys up to a dot, shortest first, three levels deep."""
    found = {
        ".".join(parts[:depth]) + "."
        for parts in (key.split(".") for key in keys)
        for depth in range(1, min(4, len(parts)))
    }
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _part_reasons(missing: Sequence[str], unexpected: Sequence[str]) -> list[str]:
    """Explain whole parts that only one side has."""
    reasons = []
    if any(key.startswith(EMA) for key in missing):
        reasons.append("the file has no EMA weights (model_ema.*), the model wants them; set use_ema: false")
    if any(key.startswith(EMA) for key in unexpected):
        reasons.append("the file has EMA weights (model_ema.*), the model was built with use_ema: false")
    if any(key.startswith(FIRST_STAGE) for key in missing):
        reasons.append(
            "the file has no first stage (first_stage_model.*); set ckpt_path in first_stage_config"
        )
    if any(key.startswith("loss.") for key in unexpected):
        reasons.append('the file has the first stage\'s training loss; use ignore_prefixes=("loss.",)')
    blocks = ("input_blocks.", "output_blocks.", "middle_block.")
    if any(block in key for key in (*missing, *unexpected) for block in blocks if not key.startswith(EMA)):
        reasons.append(
            "the UNet has other blocks; compare channel_mult, num_res_blocks, attention_resolutions, "
            "use_spatial_transformer and resblock_updown with the config that the file was trained with"
        )
    return reasons


def _setting_reasons(misshaped: Sequence[Mismatch]) -> list[str]:
    """Explain shapes by the settings that decide them."""
    reasons: list[str] = []
    for ending, dimension, setting in SETTINGS:
        for key, found, want in misshaped:
            same_rank = len(found) == len(want) > dimension
            if key.endswith(ending) and same_rank and found[dimension] != want[dimension]:
                reason = f"another {setting}: {found[dimension]} in the file, {want[dimension]} in the config"
                if reason not in reasons:
                    reasons.append(reason)
    return reasons
