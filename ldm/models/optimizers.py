"""Settings of the optimizer, its learning-rate schedule, and an AdamW that steps inside the backward pass."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

WARM_UP = 50  # default warmup steps of annealed training


def annealed(optimizer: Optimizer, steps: int, warmup_steps: int | None = None) -> Any:
    """Return the optimizer with linear warmup and cosine decay, as Lightning's `configure_optimizers` expects it.

    The rate rises linearly over `warmup_steps` and is multiplied by (1 + cos(pi n / steps)) / 2.

    Args:
        optimizer: its learning rate is the peak rate.
        steps: length of the decay to zero; 0 keeps the rate constant.
        warmup_steps: None for WARM_UP steps with decay and none without.

    Raises:
        ValueError: a negative number.
    """
    if steps < 0 or (warmup_steps or 0) < 0:
        raise ValueError(f"anneal_steps and warmup_steps must be at least 0, got {steps} and {warmup_steps}")
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
    """AdamW (arXiv 1711.05101) that updates each parameter as soon as its gradient is complete.

    Yields the same weights as AdamW without storing all gradients at once; state dicts are AdamW's. Each
    gradient is freed after use, which rules out gradient clipping, accumulation, loss scaling and averaging
    over processes.

    Args:
        params: all parameters that receive a gradient.
        lr: learning rate, which schedulers may change between steps.
        bf16_first_moment: keep the first moment in bfloat16 (as arXiv 2412.19437 does), which halves its
            memory. Each step replaces a tenth of it, so rounding does not lose the update; it would in the
            second moment, of which each step replaces a thousandth.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, bf16_first_moment: bool = False) -> None:
        super().__init__(params, lr=lr, fused=True)
        self.bf16_first_moment = bf16_first_moment
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(partial(self._update, number))

    def _update(self, number: int, parameter: Tensor) -> None:
        """Update one parameter of group `number` and free its gradient."""
        every_group, state = self.param_groups, self.state[parameter]
        before = state.get("exp_avg")
        if before is not None:  # the fused step requires both moments in one dtype
            state["exp_avg"] = before.to(parameter.dtype)
        self.param_groups = [{**every_group[number], "params": [parameter]}]
        try:
            AdamW.step(self)
        finally:
            self.param_groups = every_group
        if self.bf16_first_moment:
            state["exp_avg"] = _halved(state["exp_avg"], before)
        parameter.grad = None

    def step(self, closure: Any = None) -> Any:
        """Run `closure`; its backward pass updates the parameters."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()


def _halved(moment: Tensor, before: Tensor | None) -> Tensor:
    """Return a moment in bfloat16, reusing the memory of `before` to avoid fragmented memory."""
    if before is None or before.dtype != torch.bfloat16:
        return moment.to(torch.bfloat16)
    return before.copy_(moment)


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings of AdamW and its learning rate.

    Attributes:
        anneal_steps: length of the cosine decay of the learning rate to zero; 0 keeps it constant.
        warmup_steps: length of the linear warmup; None for the default of `annealed`.
        step_in_backward: use AdamWInBackward.
        bf16_first_moment: with it, keep the first moment in bfloat16.

    Raises:
        ValueError: bf16_first_moment without step_in_backward.
    """

    anneal_steps: int = 0
    warmup_steps: int | None = None
    step_in_backward: bool = False
    bf16_first_moment: bool = False

    def __post_init__(self) -> None:
        if self.bf16_first_moment and not self.step_in_backward:
            raise ValueError("bf16_first_moment has no effect without step_in_backward; set both or neither")

    def build(self, parameters: list[nn.Parameter], learning_rate: float, fused: bool) -> Any:
        """Return the optimizer and its schedule, as Lightning's `configure_optimizers` expects them."""
        adamw: Optimizer = (
            AdamWInBackward(parameters, learning_rate, self.bf16_first_moment)
            if self.step_in_backward
            else AdamW(parameters, lr=learning_rate, fused=fused)
        )
        return annealed(adamw, self.anneal_steps, self.warmup_steps)
