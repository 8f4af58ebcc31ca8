"""EMA copies of weights: use them in place of the weights, or where the weights themselves are missing."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.key_names import EMA, EMA_COPIES, EMA_STATE, MODEL, has_prefix, listed


def has_ema(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has EMA copies of the UNet's weights."""
    return has_prefix(state_dict, EMA)


def has_raw(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the UNet's weights themselves."""
    return has_prefix(state_dict, MODEL)


def use_ema_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace the weights `model.*` by their EMA copies, and `cond_stage_model.*` too if it has copies.

    The copy of `model.a.b.weight` is stored as `model_ema.abweight`: the name below `model.` without dots. A
    file without `model.*` is returned as it is, see `weights_from_ema`.

    Raises:
        CheckpointError: no EMA copies, or not of every weight.
    """
    if not has_ema(state_dict):
        raise CheckpointError(
            "no EMA weights (model_ema.*): the model was trained with use_ema: false, or saved without them; use "
            'weights="raw"'
        )
    copies: dict[str, str] = {}
    for part, ema in EMA_COPIES:
        if has_prefix(state_dict, ema):
            copies |= _copies(state_dict, part, ema)
    missing = [
        key
        for key, copy in copies.items()
        if copy not in state_dict or state_dict[copy].shape != state_dict[key].shape
    ]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(copies)} weights have no EMA copy of their shape: {listed(missing)}; use "
            'weights="raw", or download the file again'
        )
    return {key: state_dict[copies.get(key, key)] for key in state_dict}


def weights_from_ema(state_dict: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Add the weights of every part that a state dict has only EMA copies of.

    Args:
        state_dict: tensors by key.
        names: keys of the model, which the keys of EMA copies alone do not determine.

    Raises:
        CheckpointError: copies of weights that the model does not have.
    """
    result, names = dict(state_dict), list(names)
    for part, ema in EMA_COPIES:
        if has_prefix(state_dict, part) or not has_prefix(state_dict, ema) or not has_prefix(names, part):
            continue
        copies = _copies(names, part, ema)
        known = {*copies.values(), *(ema + name for name in EMA_STATE)}
        unknown = [key for key in state_dict if key.startswith(ema) and key not in known]
        if unknown:
            raise CheckpointError(
                f"the file has only EMA weights, and {len(unknown)} of them belong to no weight of this model: "
                f"{listed(unknown)}; use the config that the file was trained with"
            )
        result |= {name: state_dict[copy] for name, copy in copies.items() if copy in state_dict}
    return result


def _copies(names: Iterable[str], part: str, ema: str) -> dict[str, str]:
    """Return the key of the EMA copy of each weight that starts with `part`.

    Raises:
        CheckpointError: two weights share one.
    """
    copies = {name: ema + name[len(part) :].replace(".", "") for name in names if name.startswith(part)}
    if len(set(copies.values())) < len(copies):
        raise CheckpointError(
            f'two weights {part}* share the name of their EMA copy, so the copies are ambiguous; use weights="raw"'
        )
    return copies
