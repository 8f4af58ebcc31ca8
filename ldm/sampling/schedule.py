"""The noise schedule, and the ladders of timesteps that solvers climb down."""

import difflib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["uniform", "quadratic", "logsnr"]
SPACINGS: tuple[Spacing, ...] = ("uniform", "quadratic", "logsnr")


@dataclass(frozen=True)
class NoiseSchedule:
    """A discrete variance-preserving diffusion: xt = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.

    `betas` is float64, (T,), on the CPU: solvers take single numbers from it.
    """

    betas: Tensor

    @classmethod
    def scaled_linear(cls, start: float = 0.0015, end: float = 0.0195, steps: int = 1000) -> "NoiseSchedule":
        """Return beta_t = linspace(sqrt(start), sqrt(end), steps)^2, latent diffusion's schedule."""
        roots = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64, device="cpu")
        return cls(roots**2)

    def zero_terminal_snr(self) -> "NoiseSchedule":
        """Return the schedule shifted so that the last step leaves no data (arXiv 2305.08891, algorithm 1).

        No data means alpha_bar = 2^-24: x0 = (x - sigma eps) / sqrt(alpha_bar) must still be a number.
        """
        root = self.alpha_bar.sqrt()
        last = 2.0**-12
        root = last + (root - root[-1]) * (root[0] - last) / (root[0] - root[-1])
        bar = root**2
        return NoiseSchedule(1 - bar / torch.cat([bar.new_ones(1), bar[:-1]]))

    def __len__(self) -> int:
        return len(self.betas)

    @property
    def alpha_bar(self) -> Tensor:
        """The share of the data's variance that is left at each t: (T,), falling."""
        return torch.cumprod(1 - self.betas, 0)

    def buffers(self) -> dict[str, Tensor]:
        """Return the float32 tensors (T,) that published checkpoints store, by their names there."""
        betas, bar = self.betas, self.alpha_bar
        before = torch.cat([bar.new_ones(1), bar[:-1]])
        variance = betas * (1 - before) / (1 - bar)  # of q(x_{t-1} | xt, x0): DDPM, equation 7
        tensors = {
            "betas": betas,
            "alphas_cumprod": bar,
            "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": bar.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - bar).sqrt(),
            "log_one_minus_alphas_cumprod": (1 - bar).log(),
            "sqrt_recip_alphas_cumprod": (1 / bar).sqrt(),
            "sqrt_recipm1_alphas_cumprod": (1 / bar - 1).sqrt(),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
            "posterior_mean_coef1": betas * before.sqrt() / (1 - bar),
            "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - bar),
        }
        return {name: tensor.float() for name, tensor in tensors.items()}

    def timesteps(self, steps: int, spacing: Spacing = "uniform") -> list[int]:
        """Return an ascending ladder of timesteps for `steps` steps of 1..T.

        uniform: 0, c, 2c, ... plus 1 with c = T // steps, as published; it may hold more than `steps` rungs
        (60 of 1000 make 63), and a rung beyond the schedule becomes its last. Where c is 1, for which the
        published rule runs off the schedule, it is exactly `steps` rungs from 0 to T - 1.
        quadratic: floor(linspace(0, sqrt(0.8 T), steps)^2) + 1.
        logsnr: `nodes` without its end.

        Raises:
            ValueError: `steps` is out of range or `spacing` unknown.
        """
        T = len(self)
        if not 1 <= steps <= T:
            raise ValueError(f"{steps} sampling steps; wanted 1 .. {T}")
        if spacing == "quadratic":
            roots = torch.linspace(0, (0.8 * T) ** 0.5, steps, dtype=torch.float64)
            return [int(t) + 1 for t in roots**2]
        if spacing == "logsnr":
            return self.nodes(steps, spacing)[-2::-1]
        if spacing != "uniform":
            raise ValueError(_unknown(spacing))
        stride = T // steps
        if stride == 1:
            return evenly(steps, T)
        return [min(t + 1, T - 1) for t in range(0, T, stride)]

    def nodes(self, steps: int, spacing: Spacing = "uniform") -> list[int]:
        """Return the `steps` + 1 timesteps, from T - 1 down to 0, between which a multistep solver moves.

        They are even in t (uniform), in sqrt(t) (quadratic) or in log(alpha / sigma) (logsnr), as far as whole
        and distinct timesteps can be. Between T timesteps there are only T - 1 steps: for `steps` = T it is those.

        Raises:
            ValueError: `steps` is not in 1..T or `spacing` unknown.
        """
        last = len(self) - 1
        if not 1 <= steps <= len(self):
            raise ValueError(f"{steps} sampling steps; wanted 1 .. {len(self)}")
        steps = min(steps, last)
        share = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        if spacing == "uniform":
            wanted = last * share
        elif spacing == "quadratic":
            wanted = last * share**2
        elif spacing == "logsnr":
            bar = self.alpha_bar
            logsnr = (bar / (1 - bar)).log()  # falls with t
            places = logsnr[0] + share * (logsnr[-1] - logsnr[0])
            wanted = (logsnr[None] - places[:, None]).abs().argmin(1)
        else:
            raise ValueError(_unknown(spacing))
        nodes: list[int] = []
        for left, t in zip(range(steps, -1, -1), wanted.round().int().tolist(), strict=True):
            nodes.append(max(left, min(t, nodes[-1] - 1) if nodes else t))
        return nodes


def _unknown(spacing: str) -> str:
    nearest = sorted(SPACINGS, key=lambda name: -difflib.SequenceMatcher(None, name, spacing).ratio())
    return f"unknown spacing {spacing!r}; there are {', '.join(nearest)}"


def evenly(steps: int, T: int) -> list[int]:
    """Return `steps` timesteps from 0 to T - 1, ascending; T - 1 alone for one step."""
    if steps == 1:
        return [T - 1]
    return [round(t) for t in torch.linspace(0, T - 1, steps, dtype=torch.float64).tolist()]
