"""The learning rate over a training: a warm-up, then constant or a fall to zero along a cosine."""

import math
from typing import Any

from torch.optim import Optimizer
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
