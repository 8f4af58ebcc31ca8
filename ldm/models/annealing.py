"""The learning rate of short trainings: a warm-up, then a fall to zero along a cosine."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

WARM_UP = 50  # optimiser steps


def annealed(optimizer: Optimizer, steps: int) -> Any:
    """Return what Lightning's `configure_optimizers` wants: the optimiser, its rate falling to zero in `steps`.

    The rate rises over WARM_UP steps and then follows (1 + cos(pi n / steps)) / 2; `steps` 0 keeps it constant.
    """
    if steps == 0:
        return optimizer

    def factor(n: int) -> float:
        return min(1.0, (n + 1) / WARM_UP) * (1 + math.cos(math.pi * min(n / steps, 1))) / 2

    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
    }
