"""Parameters from a YAML, held against the signature of the class that gets them before it is called."""

import difflib
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# The least and the most that a number below this name may be, in our own classes. Beyond it nothing can be built:
# 10^12 residual blocks would run until the memory is full.
WIDTH = (1, 65_536)
LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("image_size", "resolution", "size", "cell"), (1, 16_384)),
    **dict.fromkeys(("in_channels", "out_channels", "model_channels", "context_dim", "spade_hidden"), WIDTH),
    **dict.fromkeys(("channels", "ch", "out_ch", "z_channels", "embed_dim", "output_dim", "hidden"), WIDTH),
    **dict.fromkeys(("num_feat", "disc_channels"), WIDTH),
    **dict.fromkeys(("num_res_blocks", "transformer_depth", "grid", "style_grid"), (1, 64)),
    **dict.fromkeys(("channel_mult", "ch_mult"), (1, 64)),
    **dict.fromkeys(("num_classes", "num_mask_channels"), (1, 255)),
    **dict.fromkeys(("num_downsample", "num_upsample"), (0, 12)),
    **dict.fromkeys(("timesteps", "sample_steps"), (1, 100_000)),
    **dict.fromkeys(
        ("anneal_steps", "warmup_steps", "revive_after", "disc_start", "norm_groups"), (0, 10**12)
    ),
    **dict.fromkeys(("num_heads", "num_head_channels"), (-1, 65_536)),
    **dict.fromkeys(("batch_frequency", "log_every_t"), (1, 10**12)),
    "n_embed": (1, 2**24),
    "batch_size": (1, 10**6),
    "num_workers": (0, 1024),
    "disc_num_layers": (1, 16),
    "max_images": (0, 1024),
}
MAX_ITEMS = 64  # of a list of numbers, such as channel_mult


class ConfigError(ValueError):
    """A YAML asks for something that does not exist; the message says what would."""


def check_params(cls: type, params: Mapping[str, Any], name: str) -> None:
    """Check parameters by name, and for classes of this project by type and range.

    Args:
        cls: the class that would get them.
        params: by name.
        name: what errors call the class, or where in the config it stands.

    Raises:
        ConfigError: unknown, missing, of another type, or out of range; names the key, the value and what is expected.
    """
    try:
        known = inspect.signature(cls).parameters
    except (TypeError, ValueError):  # classes that are written in C may have none
        return
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        for key in params:
            if key not in known:
                raise ConfigError(
                    f"{name} takes no parameter {key!r}; did you mean {nearest(key, known)}? "
                    f"It takes {', '.join(known)}"
                )
    missing = [key for key, p in known.items() if _required(p) and key not in params]
    if missing:
        raise ConfigError(f"{name} needs the parameter{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    if cls.__module__.partition(".")[0] != "ldm":
        return  # annotations of others are documentation, and not always true
    hints = typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
    for key, value in params.items():
        if (expected := mismatch(hints.get(key, Any), value)) is not None:
            raise ConfigError(f"{name}: {key} must be {expected}, got {_shown(value)}")
        _check_range(key, value, f"{name}: {key}")


def mismatch(hint: Any, value: Any) -> str | None:
    """Return None where `value` is of the type `hint`, else what is expected, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        expected = [mismatch(option, value) for option in arguments]
        return None if None in expected else " or ".join(dict.fromkeys(map(str, expected)))
    if origin is typing.Literal:
        return None if value in arguments else f"one of {', '.join(map(repr, arguments))}"
    if hint is float and type(value) in (int, float):
        return None if math.isfinite(value) else "a finite number"
    if hint in NAMES:
        return None if type(value) is hint else NAMES[hint]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mismatch_in_mapping(arguments, value)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _mismatch_in_list(arguments, value)
    return None


NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the entry of `known` that looks most like `name`, quoted."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)
    return repr(close[0]) if close else "(nothing)"


def _required(parameter: inspect.Parameter) -> bool:
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter.default is inspect.Parameter.empty and parameter.kind in by_name


def _mismatch_in_mapping(arguments: tuple[Any, ...], value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return "a mapping"
    for kind, parts in zip(arguments, (list(value), list(value.values())), strict=True):
        for part in parts:
            if (expected := mismatch(kind, part)) is not None:
                return f"a mapping of {expected} each"
    return None


def _mismatch_in_list(arguments: tuple[Any, ...], value: Any) -> str | None:
    if not isinstance(value, list | tuple):
        return "a list"
    for part in value:
        if (expected := mismatch(arguments[0], part)) is not None:
            return f"a list with {expected} at each place"
    return None


def _check_range(key: str, value: Any, name: str) -> None:
    """Raise ConfigError for a number out of LIMITS, or too many of them."""
    if key not in LIMITS:
        return
    low, high = LIMITS[key]
    numbers = value if isinstance(value, list | tuple) else [value]
    if len(numbers) > MAX_ITEMS:
        raise ConfigError(f"{name} must have at most {MAX_ITEMS} numbers, got {len(numbers)}")
    for number in numbers:
        if type(number) in (int, float) and not low <= number <= high:
            raise ConfigError(f"{name} must be in [{low:,}, {high:,}], got {_shown(number)}")


def _shown(value: Any) -> str:
    """Return a value as a message shows it: as YAML writes it, and not without end."""
    if type(value) is int and abs(value) >= 10**60:  # Python refuses to write out numbers without end
        return "a number of more than 60 digits"
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value), repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
