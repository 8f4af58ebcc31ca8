"""Multistep solvers with data prediction: DPM-Solver++(2M) and UniPC, in lambda = log(alpha / sigma).

The probability-flow ODE is linear except for the predicted x0. Between two noise levels,

    x' = sigma'/sigma x - alpha' (e^-h - 1) x0,    h = lambda' - lambda,

is exact for constant x0. Both solvers add higher-order terms, estimated from the predictions of earlier
steps.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

FEW_STEPS = 12  # up to which order 2 of UniPC has a lower error than order 3
PredictData = Callable[[Tensor, int], Tensor]  # x (B, ...), t -> x0 like x
Progress = Callable[[int, int], None]  # steps done, total number of steps


class Level(NamedTuple):
    """Noise level of a timestep: x = alpha x0 + sigma eps."""

    t: int
    alpha: float
    sigma: float

    @classmethod
    def of(cls, t: int, alpha_bar: float) -> "Level":
        """Return the level with alpha = sqrt(alpha_bar)."""
        return cls(t, math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))

    @property
    def half_logsnr(self) -> float:
        """Lambda = log(alpha / sigma)."""
        return math.log(self.alpha / self.sigma)


class Prediction(NamedTuple):
    """Prediction of x0 at a noise level."""

    half_logsnr: float
    x0: Tensor


def dpmpp_2m(predict: PredictData, x: Tensor, levels: list[Level], progress: Progress | None) -> Tensor:
    """Run DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2) from levels[0] to levels[-1]."""
    previous: Prediction | None = None
    for done, (level, below) in enumerate(pairwise(levels), 1):
        prediction = Prediction(level.half_logsnr, predict(x, level.t))
        h = below.half_logsnr - level.half_logsnr
        x0 = prediction.x0
        if previous is not None:
            r = (level.half_logsnr - previous.half_logsnr) / h
            x0 = x0 + (x0 - previous.x0) / (2 * r)
        x = _first_order_step(x, x0, level, below)
        previous = prediction
        if progress is not None:
            progress(done, len(levels) - 1)
    return x


def default_order(steps: int) -> int:
    """Return the order of UniPC with the lower error at a number of steps (docs/sampling.md)."""
    return 2 if steps <= FEW_STEPS else 3


def unipc(
    predict: PredictData,
    x: Tensor,
    levels: list[Level],
    progress: Progress | None,
    order: int | None = None,
) -> Tensor:
    """Run UniPC with B(h) = e^-h - 1 (Zhao et al., arXiv 2302.04867, algorithms 5 and 6) to levels[-1].

    Each step (UniP) uses the last `order` predictions of x0. The prediction at the new level then corrects
    the step (UniC) without a further evaluation of the network. The last step is not corrected.
    """
    order = order or default_order(len(levels) - 1)
    predictions: list[Prediction] = []  # oldest first
    previous = x
    for done, (level, below) in enumerate(pairwise(levels), 1):
        prediction = Prediction(level.half_logsnr, predict(x, level.t))
        if predictions:
            x = _unipc_step(previous, levels[done - 2], level, predictions, prediction)
        predictions = [*predictions, prediction][-order:]
        previous = x
        x = _unipc_step(x, level, below, predictions)
        if progress is not None:
            progress(done, len(levels) - 1)
    return x


def _unipc_step(
    x: Tensor,
    level: Level,
    below: Level,
    predictions: list[Prediction],
    ahead: Prediction | None = None,
) -> Tensor:
    """Step from `level` to `below`: first order by the newest prediction, higher orders by the others (eqs. 3, 9).

    `ahead` is the prediction at `below`, for the corrector.
    """
    *older, newest = predictions
    h = below.half_logsnr - level.half_logsnr
    others = [*reversed(older), *([] if ahead is None else [ahead])]
    x = _first_order_step(x, newest.x0, level, below)
    if not others:
        return x
    offsets = [(other.half_logsnr - newest.half_logsnr) / h for other in others]
    scale = below.alpha * math.expm1(-h)
    for weight, offset, other in zip(_weights(offsets, h), offsets, others, strict=True):
        x = x - scale * weight / offset * (other.x0 - newest.x0)
    return x


def _weights(offsets: list[float], h: float) -> list[float]:
    """Solve R a = b (equation 9) for predictions at `offsets` from the newest, in units of h.

    As published, the weight of a single prediction is 1/2, which keeps the order of accuracy.
    """
    if len(offsets) == 1:
        return [0.5]
    base = math.expm1(-h)
    phi = base / -h - 1
    rows, right = [], []
    for k in range(1, len(offsets) + 1):
        rows.append([offset ** (k - 1) for offset in offsets])
        right.append(phi * math.factorial(k) / base)
        phi = phi / -h - 1 / math.factorial(k + 1)
    solved = torch.linalg.solve(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    )
    return solved.tolist()


def _first_order_step(x: Tensor, x0: Tensor, level: Level, below: Level) -> Tensor:
    """Step to the level below with constant x0."""
    h = below.half_logsnr - level.half_logsnr
    return below.sigma / level.sigma * x - below.alpha * math.expm1(-h) * x0
