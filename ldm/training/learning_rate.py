"""Scaling of the learning rate of a run."""

import math
from collections.abc import Mapping
from typing import Any

from ldm.targets import ConfigError


def scaled_learning_rate(base: Any, factors: Mapping[str, int], scale: bool) -> tuple[float, str]:
    """Return the learning rate and its formula as text.

    Raises:
        ConfigError: `base` is not a positive number.
    """
    if isinstance(base, bool) or not isinstance(base, int | float) or not base > 0:
        raise ConfigError(f"model.base_learning_rate must be a number above 0, such as 1.0e-6, got {base!r}")
    if not scale:
        return float(base), f"learning rate {base:g} (base, not scaled)"
    rate = base * math.prod(factors.values())
    product = " x ".join([f"{base:g} (base)", *(f"{value} ({name})" for name, value in factors.items())])
    return rate, f"learning rate {rate:g} = {product}"
