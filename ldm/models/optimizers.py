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
