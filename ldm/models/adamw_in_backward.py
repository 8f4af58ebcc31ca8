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
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, lr=lr, fused=True)
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(partial(self._update, number))

    def _update(self, number: int, parameter: Tensor) -> None:
        """Take the step of one parameter, of the group of that number, and let go of its gradient."""
        every_group = self.param_groups
        self.param_groups = [{**every_group[number], "params": [parameter]}]
        try:
            AdamW.step(self)
        finally:
            self.param_groups = every_group
        parameter.grad = None

    def step(self, closure: Any = None) -> Any:
        """Run `closure`, whose backward pass takes the steps."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()
