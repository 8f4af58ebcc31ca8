"""Explain why weights do not fit a model: the keys that differ, and the likely reason."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ldm.checkpoints.key_names import EMA, FIRST_STAGE, MODEL, STYLE_EMA, STYLE_ENCODER, has_prefix, listed

Shape = tuple[int, ...]
TRAINING = (EMA, STYLE_EMA, "loss.")  # keys beside a model's weights in files of a training
BLOCKS = ("input_blocks.", "middle_block.", "output_blocks.")

# A key with this ending whose size differs in this dimension shows that this setting differs.
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


class Mismatch(NamedTuple):
    """Differences between the keys of a file and of a model.

    Attributes:
        missing: keys that only the model has.
        unexpected: keys that only the file has.
        misshaped: (key, shape in the file, shape in the model).
    """

    missing: Sequence[str]
    unexpected: Sequence[str]
    misshaped: Sequence[tuple[str, Shape, Shape]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)


def explain(name: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor], by: Mismatch) -> str:
    """Return the error message for weights `found` that do not fit a model with the weights `expected`."""
    lines = [f"these weights do not fit {name}:"]
    if by.missing:
        lines.append(
            f"  {len(by.missing)} of its {len(expected)} keys are missing in the file: {listed(by.missing)}"
        )
    if by.unexpected:
        lines.append(f"  {len(by.unexpected)} keys of the file are not in the model: {listed(by.unexpected)}")
    if by.misshaped:
        shapes = [f"{key} is {list(got)}, expected {list(want)}" for key, got, want in by.misshaped]
        lines.append(f"  {len(by.misshaped)} keys have another shape: {listed(shapes)}")
    reasons = _reasons(expected, found, by) or ["the file belongs to another model or config"]
    return "\n".join([*lines, *(f"  Likely reason: {reason}" for reason in reasons)])


def _reasons(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], by: Mismatch) -> list[str]:
    """Return likely reasons and what to do, the most specific first; empty if none is recognized."""
    if not found:
        return ["the file holds no weights; get it again"]
    if by.missing and (reason := _prefix_reason(expected, found)):
        return [reason]
    return _part_reasons(expected, found, by) + _block_reasons(expected, found, by) + _setting_reasons(by)


def _prefix_reason(expected: Iterable[str], found: Iterable[str]) -> str | None:
    """Explain keys that fit with a prefix added or removed; files of a training have more than the weights."""
    keys, model = set(expected), {key for key in found if not key.startswith(TRAINING)}
    for prefix in _prefixes(model):
        below = {key.removeprefix(prefix) for key in model if key.startswith(prefix)}
        if below <= keys and not model & keys:
            kind = (
                "were saved from a wrapped model" if len(below) == len(model) else "belong to a larger model"
            )
            return f'the keys {kind}: {prefix}* fits; use select_prefix(state_dict, "{prefix}")'
    for prefix in _prefixes(keys):
        if model and all(prefix + key in keys for key in model):
            first = prefix == FIRST_STAGE
            part = "the first stage" if first else f"the part {prefix.removesuffix('.')}"
            fix = "set first_stage_config's ckpt_path to it" if first else f"add {prefix} to its keys"
            return f"these are the weights of {part} alone; {fix}, and load the whole model's file here"
    return None


def _prefixes(keys: Iterable[str]) -> list[str]:
    """Return the leading parts of keys up to a dot, shortest first, at most three levels deep."""
    found = {
        ".".join(parts[:depth]) + "."
        for parts in (key.split(".") for key in keys)
        for depth in range(1, min(4, len(parts)))
    }
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _part_reasons(expected: Iterable[str], found: Iterable[str], by: Mismatch) -> list[str]:
    """Explain parts that only one side has."""
    reasons = []
    for part, name in ((MODEL, "UNet"), (STYLE_ENCODER, "style encoder")):
        if has_prefix(by.missing, part) and not has_prefix(found, part):
            reasons.append(f"the file has no {name} ({part}*)")
    if has_prefix(by.missing, EMA):
        reasons.append("the file has no EMA weights (model_ema.*), but the model has; set use_ema: false")
    if has_prefix(by.unexpected, EMA):
        reasons.append("the file has EMA weights (model_ema.*), but the model was built with use_ema: false")
    if has_prefix(by.missing, FIRST_STAGE) and not has_prefix(found, FIRST_STAGE):
        reasons.append(
            "the file has no first stage (first_stage_model.*); set ckpt_path in first_stage_config"
        )
    if has_prefix(by.unexpected, "loss."):
        reasons.append('the file has the training loss of a first stage; use ignore_prefixes=("loss.",)')
    return reasons


def _block_reasons(expected: Iterable[str], found: Iterable[str], by: Mismatch) -> list[str]:
    """Explain UNets that have blocks in common but not all."""
    differing = any(block in key for key in (*by.missing, *by.unexpected) for block in BLOCKS)
    if not differing or not any(block in key for key in set(expected) & set(found) for block in BLOCKS):
        return []
    return [
        "the UNet has other blocks; compare channel_mult, num_res_blocks, attention_resolutions, "
        "use_spatial_transformer and resblock_updown with the config that the file was trained with"
    ]


def _setting_reasons(by: Mismatch) -> list[str]:
    """Explain shapes by the settings that determine them."""
    reasons = []
    for ending, dimension, setting in SETTINGS:
        for key, got, want in by.misshaped:
            same_rank = len(got) == len(want) > dimension
            if key.endswith(ending) and same_rank and got[dimension] != want[dimension]:
                reasons.append(
                    f"another {setting}: {got[dimension]} in the file, {want[dimension]} in the config"
                )
    return list(dict.fromkeys(reasons))
