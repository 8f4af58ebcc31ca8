"""Distributed training: collectives over the global batch, and fully sharded networks."""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method


def several_processes() -> bool:
    """Return whether training runs in more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def whole_batch(part: Tensor) -> Tensor:
    """Gather the global batch (B * processes, ...) from local batches (B, ...), in single-process order.

    Samples alternate between processes, as in `ldm.data.datamodule.EpochSampler`. Gradients do not flow back.
    """
    if not several_processes():
        return part.detach()
    parts = [
        torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())
    ]
    dist.all_gather(parts, part.detach().contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


@torch.no_grad()
def agree_on_first(*tensors: Tensor) -> None:
    """Broadcast the `tensors` of the first process, in place."""
    if several_processes():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


@torch.no_grad()
def least_of_all(tensor: Tensor) -> None:
    """Reduce `tensor` to its minimum over the processes, in place."""
    if several_processes():
        dist.all_reduce(tensor, dist.ReduceOp.MIN)


@torch.no_grad()
def sum_of_all(tensor: Tensor) -> None:
    """Reduce `tensor` to its sum over the processes, in place."""
    if several_processes():
        dist.all_reduce(tensor)


def shard(network: nn.Module, mesh: DeviceMesh, blocks: Iterable[nn.Module], methods: Sequence[str]) -> None:
    """Shard the parameters of `network` over `mesh`, unless already sharded (FSDP, arXiv 2304.11277).

    The parameters of a block are gathered while it runs.

    Args:
        network: network with the same weights in every process.
        mesh: one-dimensional device mesh.
        blocks: parts of the network that are gathered separately.
        methods: methods of the network or its blocks, other than `forward`, that use parameters.
    """
    if isinstance(network, FSDPModule):
        return
    for part in (*blocks, network):
        # The root is resharded after each forward pass too, because validation swaps in the EMA weights.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
        for method in methods:
            if hasattr(part, method):
                register_fsdp_forward_method(part, method)
