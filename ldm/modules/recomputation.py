"""Activation checkpointing: recompute activations in the backward pass to save memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = bool | str  # True: everything; "cheap": inexpensive operations; False: nothing

# Operations whose outputs are kept: convolutions, matrix products and attention, in torch.ops.aten.
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
    """Return the value; raise ValueError if it is not a valid setting."""
    if not isinstance(value, bool) and value != "cheap":
        raise ValueError(f"use_checkpoint must be true, false or cheap, got {value!r}")
    return value


def recomputing(call: Callable[..., Tensor], *arguments: Any, mode: Recompute) -> Tensor:
    """Return call(*arguments), recomputing activations in the backward pass as `mode` specifies.

    "cheap" recomputes norms, activation functions, sums and copies and keeps the outputs of convolutions,
    matrix products and attention (selective activation checkpointing). Gradients are identical.
    """
    if mode is False or not torch.is_grad_enabled():
        return call(*arguments)
    if mode is True:
        return checkpoint(call, *arguments, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(call, *arguments, use_reentrant=False, context_fn=contexts)


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in COSTLY else CheckpointPolicy.PREFER_RECOMPUTE
