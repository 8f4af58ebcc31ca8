"""The running averages of a model's networks, moved and used together."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import nn

from ldm.modules.ema import EMA


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
