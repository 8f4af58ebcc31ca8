"""Power-function averages of weights, and any other length of them afterwards (EDM2, arXiv 2312.02696, section 3).

The average of weights theta(1), theta(2), ... with the exponent gamma weights step tau as tau^gamma. Its length
sigma_rel is the standard deviation of that profile, as a share of the steps so far: unlike an average of fixed decay it
grows with the training. From a few averages of two lengths, that of every other length follows: the combination of them
whose profile comes nearest.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Profile(NamedTuple):
    """Which average of weights it is."""

    step: int  # optimiser steps so far
    sigma_rel: float  # the length, as a share of them


@cache
def exponent(sigma_rel: float) -> float:
    """Return gamma of the average of this length, from sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).

    Raises:
        ValueError: a length outside (0, 0.28): that of gamma = 0, the mean of all weights, is 1 / sqrt(12).
    """
    if not 0 < sigma_rel < 0.28:
        raise ValueError(f"sigma_rel is {sigma_rel}; wanted above 0 and below 0.28, such as 0.05 or 0.1")
    low, high = 0.0, 1 / sigma_rel  # the variance falls with gamma, and is below 1 / gamma^2
    while (gamma := (low + high) / 2) not in (low, high):
        too_long = (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) > sigma_rel**2
        low, high = (gamma, high) if too_long else (low, gamma)
    return gamma


class PowerEMA:
    """The average of one length, in float32.

    Args:
        parameters: what is averaged, by name.
        sigma_rel: the length.
    """

    def __init__(self, parameters: Mapping[str, Tensor], sigma_rel: float) -> None:
        self.sigma_rel, self._power = sigma_rel, exponent(sigma_rel) + 1
        self.weights = {name: tensor.detach().float().clone() for name, tensor in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """Move towards the parameters after step `step`, 1 for the first.

        (1 - 1/step)^(gamma + 1) of what was is kept: after the first step nothing, so its start does not matter.
        """
        new = [parameters[name].detach().float() for name in self.weights]
        torch._foreach_lerp_(list(self.weights.values()), new, 1 - (1 - 1 / step) ** self._power)


def combination(kept: Sequence[Profile], sigma_rel: float) -> list[float]:
    """Return the coefficients with which averages come nearest to that of a length at the last step that is kept.

    They minimise the squared distance of the profiles, (gamma + 1) tau^gamma / step^(gamma + 1) for 0 <= tau <= step,
    and sum to 1, so that weights that never moved stay as they are.
    """
    wanted = Profile(max(profile.step for profile in kept), sigma_rel)
    products = torch.tensor([[_product(a, b) for b in kept] for a in kept], dtype=torch.float64)
    target = torch.tensor([_product(a, wanted) for a in kept], dtype=torch.float64)
    scale = (
        products.diagonal().rsqrt()
    )  # profiles of unit length, so that early ones count as much as late ones
    # The normal equations, bordered by the sum and its multiplier.
    bordered = torch.zeros(len(kept) + 1, len(kept) + 1, dtype=torch.float64)
    bordered[:-1, :-1] = products * scale[:, None] * scale
    bordered[-1, :-1] = bordered[:-1, -1] = scale / scale.max()
    right = torch.cat([target * scale, 1 / scale.max()[None]])
    found = torch.linalg.lstsq(bordered, right, driver="gelsd").solution
    return (found[:-1] * scale).tolist()


def _product(a: Profile, b: Profile) -> float:
    """Return the integral of the product of two profiles."""
    gamma_a, gamma_b, shared = exponent(a.sigma_rel), exponent(b.sigma_rel), min(a.step, b.step)
    heights = (shared / a.step) ** gamma_a * (shared / b.step) ** gamma_b / max(a.step, b.step)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * heights


def combine(averages: Iterable[Mapping[str, Tensor]], coefficients: Iterable[float]) -> dict[str, Tensor]:
    """Return the sum of averages, taken one after the other, each times its coefficient; in float32."""
    total: dict[str, Tensor] = {}
    for weights, coefficient in zip(averages, coefficients, strict=True):
        for name, tensor in weights.items():
            part = coefficient * tensor.float()
            total[name] = total[name].add_(part) if name in total else part
    return total
