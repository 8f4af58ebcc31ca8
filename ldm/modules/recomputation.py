"""Activations that the backward pass computes again instead of finding them kept: memory for time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = bool | str  # True all, "cheap" what costs little, False nothing

# What is worth its memory: convolutions, matrix products and attention, by their names in torch.ops.aten.
COSTLY = frozenset(
    getattr(torch.ops.aten, name).default
    for name in (
        "convolution",
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    )
    if hasattr(torch.ops.aten, name)
)


def check_recompute(value: Recompute) -> Recompute:
    """Return the value; ValueError for what `recomputing` does not know."""
    if not isinstance(value, bool) and value != "cheap":
        raise ValueError(f"use_checkpoint is {value!r}; wanted true, false or cheap")
    return value


def recomputing(call: Callable[..., Tensor], *arguments: Any, what: Recompute) -> Tensor:
    """Return call(*arguments); of what happens inside, the backward pass computes anew `what` says.

    With "cheap" norms, activations, sums and copies are recomputed and the outputs of convolutions, products and
    attention are kept (selective activation checkpointing). Gradients are the same.
    """
    if what is False or not torch.is_grad_enabled():
        return call(*arguments)
    if what is True:
        return checkpoint(call, *arguments, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(call, *arguments, use_reentrant=False, context_fn=contexts)


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in COSTLY else CheckpointPolicy.PREFER_RECOMPUTE
