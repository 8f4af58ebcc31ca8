"""The callable that solvers call, and one that also takes the timestep as an int."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # x (B, ...), t (B,) int64 -> eps like x


@dataclass(frozen=True)
class TimedPredict:
    """Prediction that looks at the timestep, which all images share.

    Solvers pass it as an int: reading it from `t` would wait for a GPU at every step.

    Attributes:
        function: maps x (B, ...), t (B,) and the timestep to eps like x.
    """

    function: Callable[[Tensor, Tensor, int], Tensor]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the prediction for callers that only have `t`."""
        return self.function(x, t, int(t[0]))


def evaluate(predict: Predict, x: Tensor, t: Tensor, timestep: int) -> Tensor:
    """Return predict(x, t) at the timestep that `t` (B,) repeats."""
    return predict.function(x, t, timestep) if isinstance(predict, TimedPredict) else predict(x, t)
