"""Several processes: what has to look at the batch of all, and networks of which each holds a share."""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method


def several_processes() -> bool:
    """Tell whether this process trains with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def whole_batch(part: Tensor) -> Tensor:
    """Return the batch (B * processes, ...) of all, from each one's part (B, ...), in the order of a single process.

    The processes take turns, as `ldm.data.datamodule.EpochSampler` deals. No gradient flows back.
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
    """Overwrite `tensors`, in place, with those of the first process."""
    if several_processes():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


@torch.no_grad()
def least_of_all(tensor: Tensor) -> None:
    """Lower each entry of `tensor`, in place, to the least among the processes."""
    if several_processes():
        dist.all_reduce(tensor, dist.ReduceOp.MIN)


@torch.no_grad()
def sum_of_all(tensor: Tensor) -> None:
    """Replace each entry of `tensor`, in place, by its sum over the processes."""
    if several_processes():
        dist.all_reduce(tensor)


def shard(network: nn.Module, mesh: DeviceMesh, blocks: Iterable[nn.Module], methods: Sequence[str]) -> None:
    """Share the parameters of `network` among the processes of `mesh`, once (fully sharded, arXiv 2304.11277).

    A block's parameters come together while it runs.

    Args:
        network: with the same weights in every process.
        mesh: the processes, in one dimension.
        blocks: parts of the network whose parameters are gathered one after the other.
        methods: of the network or its blocks that use parameters, besides `forward`.
    """
    if isinstance(network, FSDPModule):
        return
    for part in (*blocks, network):
        # Also the outermost gives its parameters back after each pass: validation exchanges them for averages.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
        for method in methods:
            if hasattr(part, method):
                register_fsdp_forward_method(part, method)
