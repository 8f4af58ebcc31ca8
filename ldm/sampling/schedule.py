"""Noise schedule, and the timesteps of solvers."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ldm.closest_name import by_similarity

Spacing = Literal["uniform", "quadratic", "logsnr"]
SPACINGS: tuple[Spacing, ...] = ("uniform", "quadratic", "logsnr")


@dataclass(frozen=True)
class NoiseSchedule:
    """Discrete variance-preserving schedule: xt = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.

    Attributes:
        betas: (T,), float64, on the CPU.
    """

    betas: Tensor

    @classmethod
    def scaled_linear(cls, start: float = 0.0015, end: float = 0.0195, steps: int = 1000) -> "NoiseSchedule":
        """Return beta_t = linspace(sqrt(start), sqrt(end), steps)^2, the schedule of latent diffusion (2112.10752)."""
        roots = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64, device="cpu")
        return cls(roots**2)

    def zero_terminal_snr(self) -> "NoiseSchedule":
        """Return the schedule rescaled to (nearly) zero terminal SNR (arXiv 2305.08891, algorithm 1).

        The last alpha_bar is 2^-24, so that x0 = (x - sigma eps) / sqrt(alpha_bar) stays finite.
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
        """Cumulative product of 1 - beta_t: (T,), decreasing."""
        return torch.cumprod(1 - self.betas, 0)

    def buffers(self) -> dict[str, Tensor]:
        """Return the float32 buffers (T,) that published checkpoints store, by name."""
        betas, bar = self.betas, self.alpha_bar
        before = torch.cat([bar.new_ones(1), bar[:-1]])
        variance = betas * (1 - before) / (1 - bar)  # of q(x_{t-1} | xt, x0): DDPM (2006.11239), equation 7
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
        """Return the timesteps of ddim, ddpm and plms, ascending.

        uniform: 1, 1 + c, 1 + 2c, ... with c = T // steps, clamped to T - 1, as published. There may be more
            than `steps` of them: 63 for 60 of 1000. If c is 1, the published rule would exceed T - 1;
            instead, `steps` evenly spaced timesteps from 0 to T - 1.
        quadratic: floor(linspace(0, sqrt(0.8 T), steps)^2) + 1, clamped to T - 1, as published.
        logsnr: `nodes` without its last.

        The published rules ignore the number of steps in the last timestep, where sampling starts: it is 1
        for one step and 501 for two uniform steps of 1000. Sampling that starts below 0.6 T warns.

        Raises:
            ValueError: `steps` is not in [1, T], or unknown spacing.
        """
        T = len(self)
        if not 1 <= steps <= T:
            raise ValueError(f"steps must be in [1, {T}], got {steps}")
        if spacing == "logsnr":
            return self.nodes(steps, spacing)[-2::-1]
        if spacing not in SPACINGS:
            raise ValueError(_unknown(spacing))
        stride = T // steps
        if spacing == "quadratic":
            roots = np.linspace(0, np.sqrt(0.8 * T), steps)  # NumPy's rounding decides about whole numbers
            published = (roots**2).astype(int).tolist()
        elif stride == 1:
            return evenly(steps, T)
        else:
            published = list(range(0, T, stride))
        timesteps = [min(t + 1, T - 1) for t in published]
        if timesteps[-1] < 0.6 * T:
            warnings.warn(
                f"steps: {steps} with {spacing} spacing starts at timestep {timesteps[-1]} of {T}, where samples are "
                "not pure noise; use more steps, spacing logsnr, or solver dpmpp_2m",
                stacklevel=2,
            )
        return timesteps

    def nodes(self, steps: int, spacing: Spacing = "uniform") -> list[int]:
        """Return the `steps` + 1 timesteps of dpmpp_2m and unipc, descending from T - 1 to 0.

        Evenly spaced in t (uniform), sqrt(t) (quadratic) or log(alpha / sigma) (logsnr), up to rounding to
        distinct integers. T timesteps allow T - 1 steps only: `steps` = T gives T - 1.

        Raises:
            ValueError: `steps` is not in [1, T], or unknown spacing.
        """
        last = len(self) - 1
        if not 1 <= steps <= len(self):
            raise ValueError(f"steps must be in [1, {len(self)}], got {steps}")
        steps = min(steps, last)
        share = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        if spacing == "uniform":
            exact = last * share
        elif spacing == "quadratic":
            exact = last * share**2
        elif spacing == "logsnr":
            bar = self.alpha_bar
            logsnr = (bar / (1 - bar)).log()  # (T,), decreasing
            targets = logsnr[0] + share * (logsnr[-1] - logsnr[0])  # (steps + 1,)
            exact = (logsnr[None] - targets[:, None]).abs().argmin(1)
        else:
            raise ValueError(_unknown(spacing))
        nodes: list[int] = []
        for remaining, t in zip(range(steps, -1, -1), exact.round().int().tolist(), strict=True):
            nodes.append(max(remaining, min(t, nodes[-1] - 1) if nodes else t))
        return nodes


def _unknown(spacing: str) -> str:
    return f"unknown spacing {spacing!r}; available: {', '.join(by_similarity(spacing, SPACINGS))}"


def evenly(steps: int, T: int) -> list[int]:
    """Return `steps` evenly spaced timesteps from 0 to T - 1, ascending; only T - 1 for one step."""
    if steps == 1:
        return [T - 1]
    return [round(t) for t in torch.linspace(0, T - 1, steps, dtype=torch.float64).tolist()]
