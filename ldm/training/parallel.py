"""How several processes train one model: what the names below `lightning.trainer.strategy` mean here."""

from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ldm.modules.ema import EMA


class ShardedStrategy(ModelParallelStrategy):
    """`strategy: fsdp`: every process holds a share of the weights, their averages and the optimiser's state.

    A checkpoint is still one file with whole tensors, which the first process writes: everything that reads the
    checkpoints of other runs reads it.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Share among all processes; Lightning would only do so among nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def strategy_named(name: Any) -> Any:
    """Return what the Trainer is given for `lightning.trainer.strategy`."""
    return ShardedStrategy() if name == "fsdp" else name


def keep_averages_local(model: nn.Module) -> None:
    """Spare data-parallel training the averages, as large as the model, which it would send around at every step.

    Each process moves them by the same weights: they stay equal by themselves.
    """
    averages = [(name, part) for name, part in model.named_modules() if isinstance(part, EMA)]
    ignored = [f"{name}.{buffer}" for name, part in averages for buffer, _ in part.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)
