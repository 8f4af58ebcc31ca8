"""Per-sample random numbers of training: a function of the seed and the sample's index in the run only.

The noise, timestep and conditioning dropout of a sample then do not depend on the number of processes or on
gradient accumulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.sampling.noise import draw, seeded


@dataclass(frozen=True)
class BatchIndex:
    """Index of a batch within a run; processes get samples in round-robin order, as in `EpochSampler`.

    Attributes:
        seed: seed of the run.
        batch: batches per process since the start of the run.
        rank: index of this process.
        processes: number of processes.
    """

    seed: int
    batch: int
    rank: int = 0
    processes: int = 1

    def seeds(self, count: int) -> list[int]:
        """Return a seed for each of the `count` samples of the batch."""
        numbers = [(self.batch * count + i) * self.processes + self.rank for i in range(count)]
        return [int(np.random.SeedSequence((self.seed, n)).generate_state(1, np.uint64)[0]) for n in numbers]


class PerSampleRNG:
    """Random numbers of a batch, with one generator per sample.

    Args:
        batch_index: position in the run; None seeds the generators from torch's global one.
        count: batch size B.
        device: device of the results. The numbers are drawn on the CPU, so they are the same for every
            device.
    """

    def __init__(
        self, batch_index: BatchIndex | None, count: int, device: torch.device | str = "cpu"
    ) -> None:
        seeds = torch.randint(2**62, (count,)).tolist() if batch_index is None else batch_index.seeds(count)
        self.generators, self.device = seeded(seeds), device

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Sample standard normal numbers (B, *shape)."""
        return draw((len(self.generators), *shape), self.generators, self.device)

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Sample uniform numbers (B, *shape) in [0, 1)."""
        return torch.stack([torch.rand(tuple(shape), generator=g) for g in self.generators]).to(self.device)

    def integers(self, high: int) -> Tensor:
        """Sample uniform integers (B,) in [0, high)."""
        return torch.cat([torch.randint(high, (1,), generator=g) for g in self.generators]).to(self.device)
