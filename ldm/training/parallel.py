"""Strategies for training with several processes (`lightning.trainer.strategy`)."""

from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ldm.modules.ema import EMA


class ShardedStrategy(ModelParallelStrategy):
    """`strategy: fsdp`: weights, EMAs and optimiser state are sharded over the processes.

    Checkpoints are still single files with full tensors, written by the first process, in the format of other
    runs.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Shard over all processes; by default Lightning only shards over nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def strategy_named(name: Any) -> Any:
    """Return the Trainer's strategy for `lightning.trainer.strategy`."""
    return ShardedStrategy() if name == "fsdp" else name


def keep_averages_local(model: nn.Module) -> None:
    """Exclude the EMAs from the buffers that data-parallel training broadcasts at every step.

    Each process updates them with the same weights, so they stay equal.
    """
    averages = [(name, part) for name, part in model.named_modules() if isinstance(part, EMA)]
    ignored = [f"{name}.{buffer}" for name, part in averages for buffer, _ in part.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)
