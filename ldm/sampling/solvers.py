"""Solvers: from noise to data, and back, given nothing but a prediction of the noise."""

import difflib
import warnings
from collections import deque
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ldm.sampling.multistep import Level, PredictData, dpmpp_2m, unipc
from ldm.sampling.noise import Generators, draw
from ldm.sampling.schedule import NoiseSchedule, Spacing, evenly

Predict = Callable[[Tensor, Tensor], Tensor]  # x (B, ...), t (B,) int64 -> eps like x
Progress = Callable[[int, int], None]  # steps done, steps in all
Solver = Literal["ddim", "ddpm", "plms", "dpmpp_2m", "unipc"]
SOLVERS: tuple[Solver, ...] = ("ddim", "ddpm", "plms", "dpmpp_2m", "unipc")


def sample(
    predict: Predict,
    x_T: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int,
    solver: str = "ddim",
    eta: float = 0.0,
    spacing: Spacing = "uniform",
    generator: Generators = None,
    progress: Progress | None = None,
) -> Tensor:
    """Turn noise into data.

    Args:
        predict: returns the noise in x at t.
        x_T: (B, ...), standard normal noise.
        schedule: the one that the model was trained with.
        steps: 1..T.
        solver: "ddim" (arXiv 2010.02502), "ddpm" (2006.11239), "plms" (2202.09778), "dpmpp_2m" (2211.01095)
            or "unipc" (2302.04867).
        eta: share of fresh noise in ddim, 0 (none) .. 1 (as in ddpm).
        spacing: of the timesteps, see `NoiseSchedule.timesteps`; ddpm has its own, even.
        generator: where fresh noise comes from, one per image or one for all.
        progress: called after every step with the steps done and the steps in all.

    Returns:
        x_0, like x_T.

    Raises:
        ValueError: an unknown solver, or arguments that the solver cannot take.
    """
    if solver not in SOLVERS:
        nearest = sorted(SOLVERS, key=lambda name: -difflib.SequenceMatcher(None, name, solver).ratio())
        raise ValueError(f"unknown solver {solver!r}; there are {', '.join(nearest)}")
    if eta < 0 or (eta > 0 and solver not in ("ddim", "ddpm")):
        raise ValueError(f"eta is {eta}; wanted 0" + (" or more" if solver == "ddim" else f" with {solver}"))
    if solver == "ddpm" and (eta != 0 or spacing != "uniform"):
        warnings.warn(
            "ddpm takes neither eta nor spacing: its noise and its even timesteps are fixed", stacklevel=2
        )
    with torch.no_grad():
        if solver in MULTISTEP:
            bar = schedule.alpha_bar.tolist()
            levels = [Level.of(t, bar[t]) for t in schedule.nodes(steps, spacing)]
            return MULTISTEP[solver](_data(predict, bar), x_T, levels, progress)
        if solver == "plms":
            return _plms(predict, x_T, _ladder(schedule, steps, spacing), progress)
        if solver == "ddpm":
            bar = schedule.alpha_bar.tolist()
            ladder = _rungs(bar, evenly(_checked(steps, schedule), len(schedule)), first=1.0)
            return _ddim(predict, x_T, ladder, 1.0, generator, progress)
        return _ddim(predict, x_T, _ladder(schedule, steps, spacing), eta, generator, progress)


def invert(
    predict: Predict,
    x_0: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int,
    spacing: Spacing = "uniform",
    progress: Progress | None = None,
) -> Tensor:
    """Turn data into the noise that DDIM (eta 0, same steps and spacing) turns back into it, nearly.

    Climbs the same ladder upwards, with the prediction at the t that is being reached.
    """
    ladder = _ladder(schedule, steps, spacing)
    x = x_0
    with torch.no_grad():
        for done, (t, a, a_prev) in enumerate(ladder, 1):
            eps = predict(x, _batch(t, x))
            x = _move(x, eps, a_prev, a)
            if progress is not None:
                progress(done, len(ladder))
    return x


Rung = tuple[int, float, float]  # t, alpha_bar there, alpha_bar of the rung below


MULTISTEP = {"dpmpp_2m": dpmpp_2m, "unipc": unipc}


def _data(predict: Predict, bar: list[float]) -> PredictData:
    """Return the prediction of x0 that follows from one of the noise."""
    return lambda x, t: (x - (1 - bar[t]) ** 0.5 * predict(x, _batch(t, x))) / bar[t] ** 0.5


def _checked(steps: int, schedule: NoiseSchedule) -> int:
    if not 1 <= steps <= len(schedule):
        raise ValueError(f"{steps} sampling steps; wanted 1 .. {len(schedule)}")
    return steps


def _rungs(bar: list[float], timesteps: list[int], first: float) -> list[Rung]:
    below = [first] + [bar[t] for t in timesteps[:-1]]
    return [(t, bar[t], a_prev) for t, a_prev in zip(timesteps, below, strict=True)]


def _ladder(schedule: NoiseSchedule, steps: int, spacing: Spacing) -> list[Rung]:
    bar = schedule.alpha_bar.tolist()
    return _rungs(bar, schedule.timesteps(steps, spacing), first=bar[0])


def _batch(t: int, x: Tensor) -> Tensor:
    return torch.full((x.shape[0],), t, device=x.device, dtype=torch.long)


def _move(x: Tensor, eps: Tensor, a: float, a_next: float, sigma: float = 0.0) -> Tensor:
    """Move x from noise level `a` to `a_next` along eps, leaving room for noise of size sigma (DDIM, eq. 12)."""
    x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
    return a_next**0.5 * x0 + max(1 - a_next - sigma**2, 0.0) ** 0.5 * eps


def _ddim(
    predict: Predict,
    x: Tensor,
    ladder: list[Rung],
    eta: float,
    generator: Generators,
    progress: Progress | None,
) -> Tensor:
    """DDIM; with eta 1 the ancestral sampling of DDPM, whose posterior variance sigma^2 then is (eq. 16)."""
    for done, (t, a, a_prev) in enumerate(reversed(ladder), 1):
        eps = predict(x, _batch(t, x))
        sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)) ** 0.5
        x = _move(x, eps, a, a_prev, sigma)
        if sigma > 0:
            x = x + sigma * draw(x.shape, generator, x.device, x.dtype)
        if progress is not None:
            progress(done, len(ladder))
    return x


# Adams-Bashforth weights of the newest and the older predictions, by order.
ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def _plms(predict: Predict, x: Tensor, ladder: list[Rung], progress: Progress | None) -> Tensor:
    """Pseudo linear multi-step: DDIM along a mean of the last predictions (PNDM, equations 9, 12, 13)."""
    recent: deque[Tensor] = deque(maxlen=4)  # newest first
    descending = list(reversed(ladder))
    for i, (t, a, a_prev) in enumerate(descending):
        eps = predict(x, _batch(t, x))
        recent.appendleft(eps)
        if len(recent) == 1:  # pseudo improved Euler
            t_next = descending[min(i + 1, len(descending) - 1)][0]
            ahead = predict(_move(x, eps, a, a_prev), _batch(t_next, x))
            mean = (eps + ahead) / 2
        else:
            weights = ADAMS_BASHFORTH[len(recent)]
            mean = torch.stack([w * e for w, e in zip(weights, recent, strict=True)]).sum(0)
        x = _move(x, mean, a, a_prev)
        if progress is not None:
            progress(i + 1, len(descending))
    return x
