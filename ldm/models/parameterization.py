"""What the network's output means: the noise, or v, a mixture of noise and data.

All of it follows from xt = signal x0 + sigma eps with signal^2 + sigma^2 = 1.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Levels(NamedTuple):
    """How much of xt is data and how much is noise, for each image of a batch."""

    signal: Tensor  # B 1 1 1: sqrt(alpha_bar)
    sigma: Tensor  # B 1 1 1: sqrt(1 - alpha_bar)

    def mix(self, x0: Tensor, eps: Tensor) -> Tensor:
        """Return xt, the data (B, C, h, w) with that much noise (DDPM, equation 4)."""
        return self.signal * x0 + self.sigma * eps


@dataclass(frozen=True)
class Parameterization:
    """What the network predicts.

    Attributes:
        name: "eps", the noise, as published; or "v" = signal eps - sigma x0 (arXiv 2202.00512, section 4).

    Raises:
        ValueError: another name.
    """

    name: str = "eps"

    def __post_init__(self) -> None:
        if self.name not in ("eps", "v"):
            raise ValueError(f"parameterization is {self.name!r}; wanted 'eps' or 'v'")

    def target(self, x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
        """Return what a perfect network would put out, (B, C, h, w)."""
        return eps if self.name == "eps" else levels.signal * eps - levels.sigma * x0

    def eps(self, out: Tensor, xt: Tensor, levels: Levels) -> Tensor:
        """Return the noise (B, C, h, w) that an output means for xt: signal v + sigma xt."""
        return out if self.name == "eps" else levels.signal * out + levels.sigma * xt
