"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ldm.sampling.solvers import Predict

ApplyModel = Callable[[Tensor, Tensor, Any], Tensor]


def guide(apply_model: ApplyModel, cond: Any, null: Any, scale: float) -> Predict:
    """Return predict(x, t) = e_null + scale * (e - e_null); one pass, without `null`, where scale is 1.

    Args:
        apply_model: takes x (B, C, h, w), t (B,) and a conditioning; returns eps.
        cond: the conditioning.
        null: what stands for no conditioning.
        scale: 1 samples the conditional distribution, more sharpens it.
    """
    if scale == 1:
        return lambda x, t: apply_model(x, t, cond)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        unconditional = apply_model(x, t, null)
        return unconditional + scale * (apply_model(x, t, cond) - unconditional)

    return predict
