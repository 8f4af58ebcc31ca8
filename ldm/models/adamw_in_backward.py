"""AdamW that takes its step while the backward pass runs, so that gradients never exist all at once."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW


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
        self.param_groups = [{**every_group[number], "params": [parameter]}]
        half = state["exp_avg"] if self.half_first_moment and state else None
        if half is not None:  # the fused step wants both moments alike
            state["exp_avg"] = half.to(parameter.dtype)
        try:
            AdamW.step(self)
        finally:
            self.param_groups = every_group
        if self.half_first_moment:  # in the memory it had, or else the heap ends up in pieces
            full = state["exp_avg"]
            kept_dtype = torch.bfloat16
            state["exp_avg"] = (
                full.to(torch.bfloat16) if half is None or half.dtype != kept_dtype else half.copy_(full)
            )
        parameter.grad = None

    def step(self, closure: Any = None) -> Any:
        """Run `closure`, whose backward pass takes the steps."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()
