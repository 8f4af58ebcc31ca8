"""One batch that several processes share: what has to look at all of it, whoever holds which part."""

import torch
import torch.distributed as dist
from torch import Tensor


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
