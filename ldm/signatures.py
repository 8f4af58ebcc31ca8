"""Check parameters of a YAML against the signature of the class that receives them, before it is called."""

import inspect
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ldm.closest_name import closest_name

# Range of the numbers with these names in classes of this project. Outside of it nothing can be built or trained:
# 10^12 residual blocks would fill the memory, and a batch of 0 images ends in a division by zero.
Limits = Mapping[str, tuple[float, float]]
WIDTH = (1, 65_536)
LIMITS: Limits = {
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
        ("anneal_steps", "warmup_steps", "codebook_reset_after", "disc_start", "norm_groups"), (0, 10**12)
    ),
    **dict.fromkeys(("num_heads", "num_head_channels"), (-1, 65_536)),
    **dict.fromkeys(("batch_frequency", "log_every_t"), (1, 10**12)),
    "n_embed": (1, 2**24),
    "batch_size": (1, 10**6),
    "num_workers": (0, 1024),
    "disc_num_layers": (1, 16),
    "max_images": (0, 1024),
    **dict.fromkeys(("linear_start", "linear_end"), (1e-9, 0.999)),
    **dict.fromkeys(("ema_decay", "dropout"), (0, 1)),
}
MAX_ITEMS = 64  # numbers in a list
NOT_EMPTY = ("channel_mult", "ch_mult")
# Packages whose annotations are true. Those of others are documentation, and often miss a type.
TYPED_PACKAGES = ("ldm", "pytorch_lightning")


class ConfigError(ValueError):
    """A config cannot be used; the message names the key, the value, and what is expected."""


def check_params(cls: type, params: Mapping[str, Any], name: str) -> None:
    """Check the names of parameters, and for classes of TYPED_PACKAGES types and ranges too.

    Args:
        cls: the class that receives them.
        params: parameters by name.
        name: name of the class in errors, or its path in the config.

    Raises:
        ConfigError: an unknown or missing parameter, another type, or a value out of range.
    """
    try:
        known = inspect.signature(cls).parameters
    except (TypeError, ValueError):  # classes that are written in C may have none
        return
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        for key in params:
            if key not in known:
                raise ConfigError(
                    f"{name} takes no parameter {key!r}; did you mean {closest_name(key, known)}? "
                    f"It takes {', '.join(known)}"
                )
    missing = [key for key, p in known.items() if _required(p) and key not in params]
    if missing:
        raise ConfigError(f"{name} needs the parameter{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    if cls.__module__.partition(".")[0] in TYPED_PACKAGES:
        check_types(cls, params, name)


def check_types(cls: type, params: Mapping[str, Any], name: str, limits: Limits | None = None) -> None:
    """Check types and ranges of parameters; arguments and errors as in `check_params`.

    Args:
        limits: range by name; LIMITS by default.
    """
    hints = typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
    for key, value in params.items():
        if (expected := mismatch(hints.get(key, Any), value)) is not None:
            raise ConfigError(f"{name}: {key} must be {expected}, got {format_value(value)}")
        _check_range(key, value, f"{name}: {key}", LIMITS if limits is None else limits)


def mismatch(hint: Any, value: Any) -> str | None:
    """Return None if `value` has the type `hint`, else a description of what is expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        expected = [mismatch(option, value) for option in arguments]
        if None in expected:
            return None
        return " or ".join(dict.fromkeys(text for text in map(str, expected) if text != OBJECT)) or OBJECT
    if origin is typing.Literal:
        return None if value in arguments else f"one of {', '.join(map(repr, arguments))}"
    if hint is float and type(value) in (int, float):
        return None if abs(value) <= sys.float_info.max else "a finite number"  # also false for nan
    if hint in NAMES:
        return None if type(value) is hint else NAMES[hint]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mismatch_in_mapping(arguments, value)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _mismatch_in_list(arguments, value)
    if hint is not Any and inspect.isclass(origin or hint) and (origin or hint) is not object:
        return None if isinstance(value, origin or hint) else OBJECT
    return None


NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    type(None): "null",
}
OBJECT = "an object that a YAML cannot describe"  # of a class such as a Trainer's Strategy


def _required(parameter: inspect.Parameter) -> bool:
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter.default is inspect.Parameter.empty and parameter.kind in by_name


def _mismatch_in_mapping(arguments: tuple[Any, ...], value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return "a mapping"
    for what, kind, parts in zip(("keys", "values"), arguments, (value, value.values()), strict=True):
        for part in parts:
            if (expected := mismatch(kind, part)) is not None:
                return f"a mapping whose {what} are {expected}"
    return None


def _mismatch_in_list(arguments: tuple[Any, ...], value: Any) -> str | None:
    if not isinstance(value, list | tuple):
        return "a list"
    for part in value:
        if (expected := mismatch(arguments[0], part)) is not None:
            return f"a list with {expected} at each place"
    return None


def _check_range(key: str, value: Any, name: str, limits: Limits) -> None:
    """Raise ConfigError for a number out of range, or a list of too many or no numbers."""
    low, high = (0, 1) if key.startswith("probability_of_") else limits.get(key, (-math.inf, math.inf))
    numbers = value if isinstance(value, list | tuple) else [value]
    if key in limits and len(numbers) > MAX_ITEMS:
        raise ConfigError(f"{name} must have at most {MAX_ITEMS} numbers, got {len(numbers)}")
    if key in NOT_EMPTY and not numbers:
        raise ConfigError(f"{name} must have at least one number, got an empty list")
    for number in numbers:
        if type(number) in (int, float) and not low <= number <= high:
            expected = f"at least {low:,}" if high == math.inf else f"in [{low:,}, {high:,}]"
            raise ConfigError(f"{name} must be {expected}, got {format_value(number)}")


def format_value(value: Any) -> str:
    """Return a value as YAML writes it, cut to 60 characters."""
    if type(value) is int and abs(value) >= 10**60:  # Python refuses to print larger ones
        return "a number of more than 60 digits"
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value), repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
