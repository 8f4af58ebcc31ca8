"""Load a state dict into a model: keys, shapes, dtypes and finite values are checked first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoints.averages import has_ema, has_raw, use_ema_weights, weights_from_ema
from ldm.checkpoints.diagnosis import Mismatch, explain
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.key_names import EMA, FIRST_STAGE, STYLE_EMA, has_prefix, listed

__all__ = [
    "EMA",
    "FIRST_STAGE",
    "STYLE_EMA",
    "check_finite",
    "first_stage_weights",
    "fitting",
    "has_ema",
    "has_first_stage",
    "has_raw",
    "listed",
    "load_weights",
    "plain",
    "select_prefix",
    "use_ema_weights",
    "without_first_stage_file",
]

VQ_F4 = "VQ-F4, model.ckpt in https://ommer-lab.com/files/latent-diffusion/vq-f4.zip"


def load_weights(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    strict: bool = True,
    ignore_prefixes: Sequence[str] = (),
) -> None:
    """Copy weights into a module; on an error, none.

    Args:
        module: receives the weights, converted to its own dtypes and device.
        state_dict: tensors by key. Parts with EMA copies alone get these.
        strict: require the same keys on both sides. Another shape is always an error.
        ignore_prefixes: keys with these prefixes may be missing on either side.

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
    """Return the weights of a state dict that a module has, checked but not loaded; see `load_weights`.

    Raises:
        CheckpointError: missing, unexpected or misshaped keys, with the likely reason; another kind of dtype.
    """
    expected = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    found = weights_from_ema(state_dict, expected)
    ignored = tuple(ignore_prefixes)
    common = {key: found[key] for key in expected if key in found}
    differences = Mismatch(
        [key for key in expected if key not in found and not key.startswith(ignored)] if strict else [],
        [key for key in found if key not in expected and not key.startswith(ignored)] if strict else [],
        [
            (key, tuple(value.shape), tuple(expected[key].shape))
            for key, value in common.items()
            if value.shape != expected[key].shape
        ],
    )
    if differences:
        raise CheckpointError(explain(type(module).__name__, expected, found, differences))
    wrong = [
        f"{key} is {value.dtype}, expected {expected[key].dtype} or a dtype that converts to it"
        for key, value in common.items()
        if not _converts(value.dtype, expected[key].dtype)
    ]
    if wrong:
        raise CheckpointError(f"{len(wrong)} weights have an incompatible dtype: {listed(wrong)}")
    return common


def check_finite(state_dict: Mapping[str, Tensor]) -> None:
    """Check that all values are finite.

    Raises:
        CheckpointError: NaN or infinity; names the first keys that have them.
    """
    bad = [key for key, value in state_dict.items() if not _is_finite(value)]
    if bad:
        raise CheckpointError(
            f"NaN or infinity in {len(bad)} of {len(state_dict)} weights: {listed(bad)}; the training diverged or "
            "half precision overflowed; use an earlier checkpoint"
        )


def select_prefix(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights of one part, such as `first_stage_model.`, with the prefix removed."""
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def has_first_stage(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the first stage's weights."""
    return has_prefix(state_dict, FIRST_STAGE)


def first_stage_weights(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the first stage of a complete model; the weights of a first stage alone remain as they are."""
    return select_prefix(state_dict, FIRST_STAGE) if has_first_stage(state_dict) else state_dict


def without_first_stage_file(
    model_config: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Remove the first stage's `ckpt_path` from a model's config if the state dict has its weights.

    Args:
        model_config: `{target, params: {first_stage_config: {target, params: {ckpt_path, ...}}, ...}}`.
        state_dict: weights of the whole model, with or without the first stage.

    Raises:
        CheckpointError: the first stage is neither in the state dict nor in a file.
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
            f"the checkpoint has no first stage (first_stage_model.*), and {where}; for the published models, save "
            f"the weights of {VQ_F4}, at {path or 'a path of your choice and set ckpt_path to it'}"
        )
    return config


def plain(config: Any) -> Any:
    """Copy a config, OmegaConf's included, as dictionaries and lists."""
    if isinstance(config, Mapping):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):
        return [plain(value) for value in config]
    return config


def _converts(found: torch.dtype, expected: torch.dtype) -> bool:
    """Return whether values of a dtype can be converted; integers in place of floats are quantized weights.

    Floats in place of integers are counters in a file that was converted as a whole.
    """
    return (
        found == expected
        or found.is_floating_point
        or not (expected.is_floating_point or found.is_complex or found == torch.bool)
    )


def _is_finite(value: Tensor) -> bool:
    """Return whether a tensor has neither NaN nor infinity, in one pass and without a copy."""
    if value.numel() == 0 or not (value.is_floating_point() or value.is_complex()):
        return True
    if value.is_complex():
        return bool(torch.isfinite(value).all())
    if value.dtype.itemsize == 1:
        value = value.float()  # aminmax is not implemented for 8-bit floats
    return all(bool(torch.isfinite(bound)) for bound in torch.aminmax(value))  # both bounds propagate NaN
