"""Multistep solvers that predict data: DPM-Solver++(2M) and UniPC. They integrate in lambda = log(alpha / sigma).

The probability-flow ODE is linear but for the predicted x0, so that between two levels

    x' = sigma'/sigma x - alpha' (e^-h - 1) x0,    h = lambda' - lambda,

is exact while x0 stands still. Both solvers correct for its slope with what earlier steps predicted.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

PredictData = Callable[[Tensor, int], Tensor]  # x (B, ...), t -> x0 like x
Report = Callable[[int, int], None]  # steps done, steps in all


class Level(NamedTuple):
    """A noise level: x = alpha x0 + sigma eps."""

    t: int
    alpha: float
    sigma: float

    @classmethod
    def of(cls, t: int, alpha_bar: float) -> "Level":
        """Return the level at which `alpha_bar` of the data's variance is left."""
        return cls(t, math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))

    @property
    def half_logsnr(self) -> float:
        """Lambda."""
        return math.log(self.alpha / self.sigma)


class Guess(NamedTuple):
    """What the network made of x at a level."""

    half_logsnr: float
    x0: Tensor


def dpmpp_2m(predict: PredictData, x: Tensor, levels: list[Level], report: Report | None) -> Tensor:
    """Run DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2) from levels[0] down to levels[-1]."""
    before: Guess | None = None
    for done, (level, below) in enumerate(pairwise(levels), 1):
        guess = Guess(level.half_logsnr, predict(x, level.t))
        h = below.half_logsnr - level.half_logsnr
        x0 = guess.x0
        if before is not None:
            r = (level.half_logsnr - before.half_logsnr) / h
            x0 = x0 + (x0 - before.x0) / (2 * r)
        x = _straight(x, x0, level, below)
        before = guess
        if report is not None:
            report(done, len(levels) - 1)
    return x


def unipc(
    predict: PredictData, x: Tensor, levels: list[Level], report: Report | None, order: int = 3
) -> Tensor:
    """Run UniPC with B(h) = e^-h - 1 (Zhao et al., arXiv 2302.04867, algorithms 5 and 6) down to levels[-1].

    Each step predicts from the last `order` predictions; the next call of the network, which is needed anyway, also
    corrects the step that led to it. The last step stays uncorrected.
    """
    guesses: list[Guess] = []  # oldest first
    previous = x
    for done, (level, below) in enumerate(pairwise(levels), 1):
        guess = Guess(level.half_logsnr, predict(x, level.t))
        if guesses:
            x = _unipc_step(previous, levels[done - 2], level, guesses, guess)
        guesses = [*guesses, guess][-order:]
        previous = x
        x = _unipc_step(x, level, below, guesses)
        if report is not None:
            report(done, len(levels) - 1)
    return x


def _unipc_step(
    x: Tensor, level: Level, below: Level, guesses: list[Guess], ahead: Guess | None = None
) -> Tensor:
    """Move x from `level` to `below` with the newest guess as x0, and its slope from the others (equations 3, 9)."""
    *older, newest = guesses
    h = below.half_logsnr - level.half_logsnr
    others = [*reversed(older), *([] if ahead is None else [ahead])]
    x = _straight(x, newest.x0, level, below)
    if not others:
        return x
    places = [(other.half_logsnr - newest.half_logsnr) / h for other in others]
    scale = below.alpha * math.expm1(-h)
    for weight, place, other in zip(_weights(places, h), places, others, strict=True):
        x = x - scale * weight / place * (other.x0 - newest.x0)
    return x


def _weights(places: list[float], h: float) -> list[float]:
    """Solve equation 9's system R a = b for guesses at `places`, in steps of h from the newest.

    The published method fixes the weight of a single guess at 1/2, which is right up to the order it claims.
    """
    if len(places) == 1:
        return [0.5]
    base = math.expm1(-h)
    phi = base / -h - 1
    rows, right = [], []
    for k in range(1, len(places) + 1):
        rows.append([place ** (k - 1) for place in places])
        right.append(phi * math.factorial(k) / base)
        phi = phi / -h - 1 / math.factorial(k + 1)
    solved = torch.linalg.solve(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    )
    return solved.tolist()


def _straight(x: Tensor, x0: Tensor, level: Level, below: Level) -> Tensor:
    """Move x to the level below as if x0 were constant in between."""
    h = below.half_logsnr - level.half_logsnr
    return below.sigma / level.sigma * x - below.alpha * math.expm1(-h) * x0
