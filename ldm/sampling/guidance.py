"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), in one pass of twice the batch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.sampling.solvers import Predict

ApplyModel = Callable[[Tensor, Tensor, Any], Tensor]


def guide(
    apply_model: ApplyModel,
    cond: Any,
    null: Any,
    scale: float | Tensor,
    *,
    prepare: Callable[[Any], Any] | None = None,
    active: Callable[[int], bool] | None = None,
) -> Predict:
    """Return predict(x, t) = e_null + scale * (e - e_null); without `null` wherever scale is 1.

    Args:
        apply_model: takes x (B, C, h, w), t (B,) and a conditioning; returns eps.
        cond: the conditioning: tensors (B, ...), in any nesting of mappings, lists and tuples.
        null: what stands for no conditioning, built like `cond`.
        scale: 1 samples the conditional distribution, more sharpens it; a number, or numbers that broadcast to x.
        prepare: maps a conditioning to one with which `apply_model` costs less; called once.
        active: tells whether to guide at a timestep (arXiv 2404.07724); elsewhere the null costs nothing.
    """
    prepare = prepare or (lambda ready: ready)
    if bool((torch.as_tensor(scale) == 1).all()):
        ready = prepare(cond)
        return lambda x, t: apply_model(x, t, ready)
    both = prepare(_join(cond, null))

    def predict(x: Tensor, t: Tensor) -> Tensor:
        B = len(x)
        if active is not None and not active(int(t[0])):
            return apply_model(x, t, _first(both, B))
        conditional, unconditional = apply_model(x.repeat(2, 1, 1, 1), t.repeat(2), both).split(B)
        return unconditional + scale * (conditional - unconditional)

    return predict


def _join(a: Any, b: Any) -> Any:
    """Concatenate the tensors of two conditionings along the batch."""
    if a is None:
        return None
    if isinstance(a, Tensor):
        return torch.cat([a, b])
    if isinstance(a, Mapping):
        return {key: _join(a[key], b[key]) for key in a}
    return _rebuilt(a, [_join(*pair) for pair in zip(a, b, strict=True)])


def _first(joined: Any, count: int) -> Any:
    """Return the first `count` of the batch, as views."""
    if joined is None:
        return None
    if isinstance(joined, Tensor):
        return joined[:count]
    if isinstance(joined, Mapping):
        return {key: _first(value, count) for key, value in joined.items()}
    return _rebuilt(joined, [_first(part, count) for part in joined])


def _rebuilt(like: Any, parts: list[Any]) -> Any:
    """Return `parts` as a list, tuple or named tuple, whichever `like` is."""
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)
