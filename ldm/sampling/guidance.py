"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), in one forward pass of twice the batch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.sampling.predict import Predict, TimedPredict

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
    """Return predict(x, t) = e_null + scale * (e - e_null); `null` is not evaluated if scale is 1.

    Args:
        apply_model: maps x (B, C, h, w), t (B,) and a conditioning to eps (B, C, h, w).
        cond: conditioning: tensors (B, ...) in nested mappings, lists and tuples; and bools that hold for all
            images.
        null: null conditioning, with the structure of `cond`.
        scale: guidance scale; 1 is no guidance. A number, or a tensor that broadcasts to x.
        prepare: precomputes the parts of a conditioning that do not depend on x and t; called once.
        active: returns whether to guide at a timestep (arXiv 2404.07724); otherwise `null` is not evaluated.
    """
    prepare = prepare or (lambda ready: ready)
    if bool((torch.as_tensor(scale) == 1).all()):
        ready = prepare(cond)
        return lambda x, t: apply_model(x, t, ready)
    both = prepare(_join(cond, null))

    def guided(x: Tensor, t: Tensor) -> Tensor:
        conditional, unconditional = apply_model(x.repeat(2, 1, 1, 1), t.repeat(2), both).split(
            len(x)
        )  # (B, C, h, w)
        return unconditional + scale * (conditional - unconditional)

    if active is None:
        return guided
    return TimedPredict(
        lambda x, t, timestep: guided(x, t) if active(timestep) else apply_model(x, t, _first(both, len(x)))
    )


def _join(a: Any, b: Any) -> Any:
    """Concatenate the tensors of two conditionings along the batch dimension."""
    if a is None:
        return None
    if isinstance(a, bool):
        return a and b
    if isinstance(a, Tensor):
        return torch.cat([a, b])
    if isinstance(a, Mapping):
        return {key: _join(a[key], b[key]) for key in a}
    return _rebuilt(a, [_join(*pair) for pair in zip(a, b, strict=True)])


def _first(joined: Any, count: int) -> Any:
    """Return the first `count` items of a batch, as views."""
    if joined is None or isinstance(joined, bool):
        return joined
    if isinstance(joined, Tensor):
        return joined[:count]
    if isinstance(joined, Mapping):
        return {key: _first(value, count) for key, value in joined.items()}
    return _rebuilt(joined, [_first(part, count) for part in joined])


def _rebuilt(like: Any, parts: list[Any]) -> Any:
    """Return `parts` as the type of `like`: list, tuple or named tuple."""
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)
