"""Power-function EMA and post-hoc EMA reconstruction (EDM2, arXiv 2312.02696, section 3).

The power-function EMA of weights theta(1), theta(2), ... with exponent gamma weights step tau by tau^gamma.
Its length sigma_rel is the standard deviation of that profile relative to the number of steps, so it grows
with training, unlike an EMA of fixed decay. Any other length is approximated post hoc by a linear combination
of stored snapshots of two lengths: the least-squares fit to its profile.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Profile(NamedTuple):
    """Profile of a power-function EMA."""

    step: int  # optimizer steps so far
    sigma_rel: float  # length relative to the number of steps


@cache
def exponent(sigma_rel: float) -> float:
    """Solve for gamma of an EMA of this length: sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).

    Raises:
        ValueError: a length outside (0, 0.28); gamma = 0, a uniform average, has 1 / sqrt(12).
    """
    if not 0 < sigma_rel < 0.28:
        raise ValueError(f"sigma_rel must be in (0, 0.28), such as 0.05 or 0.1, got {sigma_rel}")
    low, high = 0.0, 1 / sigma_rel  # the variance falls with gamma, and is below 1 / gamma^2
    while (gamma := (low + high) / 2) not in (low, high):
        too_long = (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) > sigma_rel**2
        low, high = (gamma, high) if too_long else (low, gamma)
    return gamma


class PowerEMA:
    """Power-function EMA of one length, in float32.

    Args:
        parameters: tensors to average, by name.
        sigma_rel: relative length.
    """

    def __init__(self, parameters: Mapping[str, Tensor], sigma_rel: float) -> None:
        self.sigma_rel, self._power = sigma_rel, exponent(sigma_rel) + 1
        self.weights = {name: tensor.detach().float().clone() for name, tensor in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """Update the average with the parameters after step `step`, counted from 1.

        The decay is (1 - 1/step)^(gamma + 1), which is 0 at the first step, so the initial value does not
        matter.
        """
        new = [parameters[name].detach().float() for name in self.weights]
        torch._foreach_lerp_(list(self.weights.values()), new, 1 - (1 - 1 / step) ** self._power)


def combination(kept: Sequence[Profile], sigma_rel: float) -> list[float]:
    """Return the coefficients of snapshots that best approximate an EMA of length `sigma_rel` at the last step.

    They minimize the squared distance between profiles, (gamma + 1) tau^gamma / step^(gamma + 1) for 0 <= tau
    <= step, and sum to 1, so that constant weights are preserved.
    """
    reference = Profile(max(profile.step for profile in kept), sigma_rel)
    products = torch.tensor([[_product(a, b) for b in kept] for a in kept], dtype=torch.float64)
    target = torch.tensor([_product(a, reference) for a in kept], dtype=torch.float64)
    scale = (
        products.diagonal().rsqrt()
    )  # profiles of unit norm, so that early ones count as much as late ones
    # Normal equations with a Lagrange multiplier for the sum.
    bordered = torch.zeros(len(kept) + 1, len(kept) + 1, dtype=torch.float64)
    bordered[:-1, :-1] = products * scale[:, None] * scale
    bordered[-1, :-1] = bordered[:-1, -1] = scale / scale.max()
    right = torch.cat([target * scale, 1 / scale.max()[None]])
    found = torch.linalg.lstsq(bordered, right, driver="gelsd").solution
    return (found[:-1] * scale).tolist()


def _product(a: Profile, b: Profile) -> float:
    """Return the inner product of two profiles."""
    gamma_a, gamma_b, shared = exponent(a.sigma_rel), exponent(b.sigma_rel), min(a.step, b.step)
    heights = (shared / a.step) ** gamma_a * (shared / b.step) ** gamma_b / max(a.step, b.step)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * heights


def combine(averages: Iterable[Mapping[str, Tensor]], coefficients: Iterable[float]) -> dict[str, Tensor]:
    """Return the linear combination of averages in float32, reading one at a time."""
    total: dict[str, Tensor] = {}
    for weights, coefficient in zip(averages, coefficients, strict=True):
        for name, tensor in weights.items():
            part = coefficient * tensor.float()
            total[name] = total[name].add_(part) if name in total else part
    return total
