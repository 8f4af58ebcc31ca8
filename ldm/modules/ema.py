"""Exponential moving averages of parameters: of one module, and of a whole model."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class EMA(nn.Module):
    """EMA of a module's parameters, in buffers named after them without dots, as in published checkpoints.

    The average follows decay * average + (1 - decay) * parameter, with decay warmed up as
    min(decay, (1 + n) / (10 + n)) after n updates.
    """

    decay: Tensor
    num_updates: Tensor

    def __init__(self, module: nn.Module, decay: float = 0.9999) -> None:
        """Initialize the average with the parameters of `module`; decay in [0, 1]."""
        super().__init__()
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"EMA decay must be in [0, 1], got {decay}")
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float32))
        self.register_buffer("num_updates", torch.tensor(0, dtype=torch.int))
        for name, parameter in module.named_parameters():
            if (key := name.replace(".", "")) in self._buffers:
                raise ValueError(f"parameters must differ in more than their dots, got two named {key}")
            self.register_buffer(key, parameter.detach().clone())
        # Decay and number of updates on the host, so that an update does not wait for the device.
        self._host: tuple[float, int] | None = None
        self.register_load_state_dict_post_hook(_forget_host)

    def _pairs(self, module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        buffers = dict(self.named_buffers())
        named = list(module.named_parameters())
        return [buffers[name.replace(".", "")] for name, _ in named], [p.detach() for _, p in named]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Update the average with the parameters of `module`."""
        limit, n = self._host or (self.decay.item(), int(self.num_updates.item()))
        n += 1
        self._host = limit, n
        self.num_updates += 1
        decay = min(limit, (1 + n) / (10 + n))
        averages, parameters = self._pairs(module)
        torch._foreach_lerp_(averages, parameters, 1 - decay)

    @torch.no_grad()
    def restart(self, module: nn.Module) -> None:
        """Reset the average to the parameters of `module`."""
        self.num_updates.zero_()
        self._host = None
        _copy(*self._pairs(module))

    def shard_like(self, module: nn.Module) -> None:
        """Shard the averages like the parameters of the sharded `module`."""
        for name, parameter in module.named_parameters():
            average = getattr(self, name.replace(".", ""))
            if isinstance(parameter, DTensor) and not isinstance(average, DTensor):
                shared = distribute_tensor(average, parameter.device_mesh, parameter.placements)
                setattr(self, name.replace(".", ""), shared)

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Swap the averaged parameters into `module` for the duration of the context."""
        averages, parameters = self._pairs(module)
        kept = [parameter.clone() for parameter in parameters]
        _copy(parameters, averages)
        try:
            yield
        finally:
            _copy(parameters, kept)


class EMAEntry(NamedTuple):
    """A network and its EMA."""

    average: EMA
    module: nn.Module
    prefix: str  # key prefix of the average in checkpoints


class EMASet(tuple[EMAEntry, ...]):
    """All EMAs of a model; may be empty."""

    def update(self) -> None:
        """Update each average with the weights of its network."""
        for average, module, _ in self:
            average.update(module)

    def restart_absent(self, weights: Mapping[str, Any]) -> None:
        """Reset the averages that a loaded state dict does not contain."""
        for average, module, prefix in self:
            if not any(key.startswith(prefix) for key in weights):
                average.restart(module)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the averaged weights into each network for the duration of the context."""
        with ExitStack() as stack:
            for average, module, _ in self:
                stack.enter_context(average.applied_to(module))
            yield


def _forget_host(average: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(average, EMA)
    average._host = None


@torch.no_grad()
def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(
        targets, sources, strict=True
    ):  # torch._foreach_copy_ does not support sharded tensors
        target.copy_(source)
