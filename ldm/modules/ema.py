"""Exponential moving averages of parameters: of one module, and of all that a model keeps."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


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
        _copy(*self._pairs(module))

    def shard_like(self, module: nn.Module) -> None:
        """Hold the share of each average that this process holds of the parameter, once `module` is sharded."""
        for name, parameter in module.named_parameters():
            average = getattr(self, name.replace(".", ""))
            if isinstance(parameter, DTensor) and not isinstance(average, DTensor):
                shared = distribute_tensor(average, parameter.device_mesh, parameter.placements)
                setattr(self, name.replace(".", ""), shared)

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Give `module` the averaged parameters for the duration of the block."""
        averages, parameters = self._pairs(module)
        kept = [parameter.clone() for parameter in parameters]
        _copy(parameters, averages)
        try:
            yield
        finally:
            _copy(parameters, kept)


class Averaged(NamedTuple):
    """A network and its running average."""

    average: EMA
    module: nn.Module
    prefix: str  # of the average's weights in checkpoints


class Averages(tuple[Averaged, ...]):
    """All running averages of a model; none is as good as some."""

    def update(self) -> None:
        """Move each towards its network's weights."""
        for average, module, _ in self:
            average.update(module)

    def restart_absent(self, weights: Mapping[str, Any]) -> None:
        """Begin those anew that a state dict, just loaded, says nothing of."""
        for average, module, prefix in self:
            if not any(key.startswith(prefix) for key in weights):
                average.restart(module)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give each network its averaged weights for the duration of the block."""
        with ExitStack() as stack:
            for average, module, _ in self:
                stack.enter_context(average.applied_to(module))
            yield


@torch.no_grad()
def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):  # sharded tensors have no torch._foreach_copy_
        target.copy_(source)
