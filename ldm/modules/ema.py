"""Exponential moving average of a module's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA(nn.Module):
    """A running average of `module`'s parameters, as buffers named like them but without dots (the checkpoints' way).

    The average follows decay * average + (1 - decay) * parameter, with decay warmed up as
    min(decay, (1 + n) / (10 + n)) after n updates.
    """

    decay: Tensor
    num_updates: Tensor

    def __init__(self, module: nn.Module, decay: float = 0.9999) -> None:
        """Start the average at the parameters of `module`; decay in [0, 1]."""
        super().__init__()
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"EMA decay is {decay}; wanted 0 .. 1")
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float32))
        self.register_buffer("num_updates", torch.tensor(0, dtype=torch.int))
        for name, parameter in module.named_parameters():
            self.register_buffer(name.replace(".", ""), parameter.detach().clone())

    def _pairs(self, module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        buffers = dict(self.named_buffers())
        named = list(module.named_parameters())
        return [buffers[name.replace(".", "")] for name, _ in named], [p.detach() for _, p in named]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the parameters of `module`."""
        self.num_updates += 1
        n = self.num_updates.item()
        decay = min(self.decay.item(), (1 + n) / (10 + n))
        averages, parameters = self._pairs(module)
        torch._foreach_lerp_(averages, parameters, 1 - decay)

    @torch.no_grad()
    def restart(self, module: nn.Module) -> None:
        """Begin anew at the parameters of `module`."""
        self.num_updates.zero_()
        averages, parameters = self._pairs(module)
        torch._foreach_copy_(averages, parameters)

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Give `module` the averaged parameters for the duration of the block."""
        averages, parameters = self._pairs(module)
        kept = [parameter.clone() for parameter in parameters]
        with torch.no_grad():
            torch._foreach_copy_(parameters, averages)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, kept)
