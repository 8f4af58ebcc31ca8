"""Networks of which each process holds a share: fully sharded data-parallel training (arXiv 2304.11277)."""

from collections.abc import Iterable, Sequence

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method


def shard(network: nn.Module, mesh: DeviceMesh, blocks: Iterable[nn.Module], methods: Sequence[str]) -> None:
    """Share the parameters of `network` among the processes of `mesh`, once; a block's come together while it runs.

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
