"""Optimisers: the learning rate over a training, and AdamW that takes its step while the backward pass runs."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

WARM_UP = 50  # optimiser steps of an annealed training, unless it says otherwise


def annealed(optimizer: Optimizer, steps: int, warmup_steps: int | None = None) -> Any:
    """Return what Lightning's `configure_optimizers` wants: the optimiser, its rate rising and falling as asked.

    The rate rises over `warmup_steps`, evenly, and is multiplied with (1 + cos(pi n / steps)) / 2.

    Args:
        optimizer: whose own rate is the highest.
        steps: until the rate is zero; 0 leaves it constant.
        warmup_steps: None takes WARM_UP where the rate falls, else 0.

    Raises:
        ValueError: a negative number.
    """
    if steps < 0 or (warmup_steps or 0) < 0:
        raise ValueError(f"anneal_steps is {steps}, warmup_steps {warmup_steps}; wanted 0 or more")
    warmup = (WARM_UP if steps else 0) if warmup_steps is None else warmup_steps
    if not steps and not warmup:
        return optimizer

    def factor(n: int) -> float:
        rise = min(1.0, (n + 1) / warmup) if warmup else 1.0
        return rise * (1 + math.cos(math.pi * min(n / steps, 1))) / 2 if steps else rise

    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
    }


class AdamWInBackward(AdamW):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101), each parameter's step as soon as its gradient is complete.

    The same weights as from AdamW, for one parameter-sized buffer less; state dicts are AdamW's. Since a gradient is
    gone once it is used, nothing may look at all of them together: no clipping, no accumulation over batches, no
    scaling of the loss, no averaging over processes.

    Args:
        params: the parameters; all that get a gradient.
        lr: the learning rate, which schedulers may change between steps.
        half_first_moment: keep the running mean of the gradients in bfloat16 (as arXiv 2412.19437 does), for half a
            buffer less. A tenth of it is new at each step, so that rounding does not swallow what is added; of the
            running mean of the squares, of which a thousandth is new, it would.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, half_first_moment: bool = False) -> None:
        super().__init__(params, lr=lr, fused=True)
        self.half_first_moment = half_first_moment
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(partial(self._update, number))

    def _update(self, number: int, parameter: Tensor) -> None:
        """Take the step of one parameter, of the group of that number, and let go of its gradient."""
        every_group, state = self.param_groups, self.state[parameter]
        before = state.get("exp_avg")
        if before is not None:  # the fused step wants both moments alike
            state["exp_avg"] = before.to(parameter.dtype)
        self.param_groups = [{**every_group[number], "params": [parameter]}]
        try:
            AdamW.step(self)
        finally:
            self.param_groups = every_group
        if self.half_first_moment:
            state["exp_avg"] = _halved(state["exp_avg"], before)
        parameter.grad = None

    def step(self, closure: Any = None) -> Any:
        """Run `closure`, whose backward pass takes the steps."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()


def _halved(moment: Tensor, before: Tensor | None) -> Tensor:
    """Return a moment in bfloat16, in the memory of the one before; or else the heap ends up in pieces."""
    if before is None or before.dtype != torch.bfloat16:
        return moment.to(torch.bfloat16)
    return before.copy_(moment)
