"""Solvers of the reverse diffusion, and DDIM inversion, for any function that predicts the noise."""

import warnings
from collections import deque
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ldm.closest_name import by_similarity
from ldm.sampling.multistep import Level, PredictData, Progress, dpmpp_2m, unipc
from ldm.sampling.noise import Generators, draw
from ldm.sampling.predict import Predict, evaluate
from ldm.sampling.schedule import NoiseSchedule, Spacing, evenly

Solver = Literal["ddim", "ddpm", "plms", "dpmpp_2m", "unipc"]
SOLVERS: tuple[Solver, ...] = ("ddim", "ddpm", "plms", "dpmpp_2m", "unipc")
UNIPC_ORDERS = (1, 2, 3)
# Adams-Bashforth weights, newest prediction first, by order.
ADAMS_BASHFORTH = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


class SolverStep(NamedTuple):
    """Step of ddim, ddpm and plms, from timestep t to the one below.

    Attributes:
        t: timestep.
        alpha_bar: alpha_bar at t.
        alpha_bar_below: alpha_bar at the timestep below.
    """

    t: int
    alpha_bar: float
    alpha_bar_below: float


def sample(
    predict: Predict,
    x_T: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int,
    solver: str = "ddim",
    eta: float = 0.0,
    spacing: Spacing = "uniform",
    order: int | None = None,
    generator: Generators = None,
    progress: Progress | None = None,
) -> Tensor:
    """Sample data from noise.

    Args:
        predict: maps x (B, ...) and t (B,) to the noise eps (B, ...) in x.
        x_T: (B, ...), standard normal noise.
        schedule: noise schedule of the model.
        steps: number of steps, in 1..T.
        solver: "ddim" (arXiv 2010.02502), "ddpm" (2006.11239), "plms" (2202.09778), "dpmpp_2m" (2211.01095)
            or "unipc" (2302.04867).
        eta: stochasticity of ddim, in [0, 1]: 0 is deterministic, 1 as ddpm.
        spacing: spacing of the timesteps, see `NoiseSchedule.timesteps`; ddpm always spaces them evenly.
        order: order of unipc, 1 to 3; by default 2 up to 12 steps and 3 for more.
        generator: generator of the noise added in each step: one per image, or one for the batch.
        progress: called after every step with the steps done and the total number of steps.

    Returns:
        x_0 (B, ...).

    Raises:
        ValueError: unknown solver, or an argument that is out of range or not supported by the solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; available: {', '.join(by_similarity(solver, SOLVERS))}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")
    if eta > 0 and solver not in ("ddim", "ddpm"):
        raise ValueError(f"eta must be 0 with the solver {solver}, got {eta}")
    if order is not None and (solver != "unipc" or order not in UNIPC_ORDERS):
        raise ValueError(f"order must be 1, 2 or 3 with unipc and None with other solvers, got {order}")
    if solver == "ddpm" and (eta != 0 or spacing != "uniform"):
        warnings.warn(
            "the solver ddpm ignores eta and spacing: its noise and its evenly spaced timesteps are fixed",
            stacklevel=2,
        )
    with torch.no_grad():
        if solver in ("dpmpp_2m", "unipc"):
            bar = schedule.alpha_bar.tolist()
            levels = [Level.of(t, bar[t]) for t in schedule.nodes(steps, spacing)]
            data = _data_prediction(predict, bar)
            if solver == "unipc":
                return unipc(data, x_T, levels, progress, order)
            return dpmpp_2m(data, x_T, levels, progress)
        if solver == "plms":
            return _plms(predict, x_T, _steps(schedule, steps, spacing), progress)
        if solver == "ddpm":
            bar = schedule.alpha_bar.tolist()
            path = _solver_steps(bar, evenly(_checked(steps, schedule), len(schedule)), last=1.0)
            return _ddim(predict, x_T, path, 1.0, generator, progress)
        return _ddim(predict, x_T, _steps(schedule, steps, spacing), eta, generator, progress)


def invert(
    predict: Predict,
    x_0: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int,
    spacing: Spacing = "uniform",
    progress: Progress | None = None,
) -> Tensor:
    """Return the noise from which DDIM (eta 0, same steps and spacing) approximately samples `x_0` (DDIM inversion).

    Takes the steps of DDIM in reverse, with the prediction at the timestep that is reached. Arguments as in
    `sample`.
    """
    path = _steps(schedule, steps, spacing)
    x = x_0
    with torch.no_grad():
        for done, (t, a, a_below) in enumerate(path, 1):
            eps = _noise(predict, x, t)
            x = _ddim_step(x, eps, a_below, a)
            if progress is not None:
                progress(done, len(path))
    return x


def _data_prediction(predict: Predict, bar: list[float]) -> PredictData:
    """Convert a prediction of the noise to one of x0."""
    return lambda x, t: (x - (1 - bar[t]) ** 0.5 * _noise(predict, x, t)) / bar[t] ** 0.5


def _checked(steps: int, schedule: NoiseSchedule) -> int:
    if not 1 <= steps <= len(schedule):
        raise ValueError(f"steps must be in [1, {len(schedule)}], got {steps}")
    return steps


def _solver_steps(bar: list[float], timesteps: list[int], last: float) -> list[SolverStep]:
    """Return the steps between ascending timesteps; the lowest one ends at alpha_bar = `last`."""
    below = [last] + [bar[t] for t in timesteps[:-1]]
    return [SolverStep(t, bar[t], a_below) for t, a_below in zip(timesteps, below, strict=True)]


def _steps(schedule: NoiseSchedule, steps: int, spacing: Spacing) -> list[SolverStep]:
    bar = schedule.alpha_bar.tolist()
    return _solver_steps(bar, schedule.timesteps(steps, spacing), last=bar[0])


def _noise(predict: Predict, x: Tensor, t: int) -> Tensor:
    """Return the predicted noise in x (B, ...) at the timestep t."""
    return evaluate(predict, x, torch.full((x.shape[0],), t, device=x.device, dtype=torch.long), t)


def _ddim_step(x: Tensor, eps: Tensor, a: float, a_next: float, sigma: float = 0.0) -> Tensor:
    """Return the mean of a DDIM step from alpha_bar = a to a_next, to which noise of scale sigma is added (eq. 12)."""
    x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
    return a_next**0.5 * x0 + max(1 - a_next - sigma**2, 0.0) ** 0.5 * eps


def _ddim(
    predict: Predict,
    x: Tensor,
    path: list[SolverStep],
    eta: float,
    generator: Generators,
    progress: Progress | None,
) -> Tensor:
    """Run DDIM; eta = 1 is ancestral sampling as in DDPM, with sigma^2 the posterior variance (eq. 16)."""
    for done, (t, a, a_below) in enumerate(reversed(path), 1):
        eps = _noise(predict, x, t)
        sigma = eta * ((1 - a_below) / (1 - a) * (1 - a / a_below)) ** 0.5
        x = _ddim_step(x, eps, a, a_below, sigma)
        if sigma > 0:
            x = x + sigma * draw(x.shape, generator, x.device, x.dtype)
        if progress is not None:
            progress(done, len(path))
    return x


def _plms(predict: Predict, x: Tensor, path: list[SolverStep], progress: Progress | None) -> Tensor:
    """Run the pseudo linear multistep method: DDIM with a mean of the last predictions (PNDM, eqs. 9, 12, 13)."""
    recent: deque[Tensor] = deque(maxlen=4)  # newest first
    descending = list(reversed(path))
    for i, (t, a, a_below) in enumerate(descending):
        eps = _noise(predict, x, t)
        recent.appendleft(eps)
        if len(recent) == 1:  # pseudo improved Euler
            t_next = descending[min(i + 1, len(descending) - 1)][0]
            ahead = _noise(predict, _ddim_step(x, eps, a, a_below), t_next)
            mean = (eps + ahead) / 2
        else:
            weights = ADAMS_BASHFORTH[len(recent)]
            mean = torch.stack([w * e for w, e in zip(weights, recent, strict=True)]).sum(0)
        x = _ddim_step(x, mean, a, a_below)
        if progress is not None:
            progress(i + 1, len(descending))
    return x
