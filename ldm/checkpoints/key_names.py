"""Key names of state dicts: the parts of a model, their EMA copies, and the prefixes that wrappers add."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

MODEL, EMA, FIRST_STAGE = "model.", "model_ema.", "first_stage_model."
STYLE_ENCODER, STYLE_EMA = "cond_stage_model.", "cond_stage_ema."
EMA_COPIES = ((MODEL, EMA), (STYLE_ENCODER, STYLE_EMA))  # (weights, their EMA copies)
EMA_STATE = ("decay", "num_updates")  # buffers of an EMA that are not copies of weights
SHOWN = 5  # keys in an error message; the rest is counted

# Components that torch.compile, FSDP, activation checkpointing and Lightning insert anywhere in a key.
INSERTED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
# DataParallel, DistributedDataParallel and AveragedModel add one in front of everything in the module they wrap.
WRAPPED = "module."
WRAPPER_STATE = "n_averaged"  # of torch.optim.swa_utils.AveragedModel


def listed(keys: Sequence[str]) -> str:
    """Return the first keys, for a message, and how many more there are."""
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


def has_prefix(keys: Iterable[str], prefix: str) -> bool:
    """Return whether any key starts with a prefix."""
    return any(key.startswith(prefix) for key in keys)


def unwrap(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Remove the key prefixes of DataParallel, DDP, torch.compile and similar wrappers.

    Returns:
        The state dict, and the prefixes that were removed. If two keys would become equal, nothing is
        removed.
    """
    names, removed = _without_inserted(state_dict)
    for part in ("", MODEL, FIRST_STAGE, STYLE_ENCODER):
        names, stripped = _without_module(names, part)
        removed += stripped
    if len(set(names.values())) < len(names):
        return dict(state_dict), []
    return {name: state_dict[key] for key, name in names.items()}, list(dict.fromkeys(removed))


def _without_inserted(keys: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Map keys to their names without the components INSERTED; EMA copies have them without dots."""
    names: dict[str, str] = {}
    removed: list[str] = []
    for key in keys:
        parts = [part for part in key.split(".") if part not in INSERTED]
        name = ".".join(parts)
        if EMA in name or STYLE_EMA in name:
            for part in INSERTED:
                name = name.replace(part, "")
        removed += [f"{part}." for part in INSERTED if name != key and part in key]
        names[key] = name
    return names, removed


def _without_module(names: Mapping[str, str], part: str) -> tuple[dict[str, str], list[str]]:
    """Remove `module.` after `part`, as often as every name that starts with `part` has it there."""
    found = dict(names)
    removed: list[str] = []
    ema = dict(EMA_COPIES).get(part)
    while True:
        below = {key: name for key, name in found.items() if name.startswith(part) and name != WRAPPER_STATE}
        if not below or not all(name.startswith(part + WRAPPED) for name in below.values()):
            return found, removed
        found = {key: name for key, name in found.items() if name != WRAPPER_STATE}
        found |= {key: part + name[len(part + WRAPPED) :] for key, name in below.items()}
        if ema is not None:
            copies = {key: name for key, name in found.items() if name.startswith(ema + "module")}
            found |= {key: ema + name[len(ema + "module") :] for key, name in copies.items()}
        removed.append(part + WRAPPED)
