"""Per-sample random numbers of training: a function of the seed and the sample's index in the run only.

The noise, timestep and conditioning dropout of a sample then do not depend on the number of processes or on
gradient accumulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.data.transfer import to_device
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
        device: device of the results. Timesteps and dropout are drawn on the CPU, so they are the same for
            every device, and copied without waiting for it. A GPU draws its normal numbers itself: they have
            generators of their own, so that they do not change the others.
    """

    def __init__(
        self, batch_index: BatchIndex | None, count: int, device: torch.device | str = "cpu"
    ) -> None:
        seeds = torch.randint(2**62, (count,)).tolist() if batch_index is None else batch_index.seeds(count)
        self.generators, self.device, self.seeds = seeded(seeds), torch.device(device), seeds
        # Another seed: with the same, the noise would depend on the timestep.
        self.normal_generators = seeded([(seed + 1) % 2**63 for seed in seeds])

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Sample standard normal numbers (B, *shape)."""
        if self.device.type == "cuda":  # a batch of 128 takes the CPU longer than the training step
            on_gpu = [torch.Generator(self.device).manual_seed(seed % 2**63) for seed in self.seeds]
            return draw((len(on_gpu), *shape), on_gpu, self.device)
        return draw((len(self.normal_generators), *shape), self.normal_generators, self.device)

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Sample uniform numbers (B, *shape) in [0, 1)."""
        return self.moved(self._uniform(shape))

    def events(self, probability: float, shape: Sequence[int] = ()) -> Tensor:
        """Sample events (B, *shape) of a probability; they stay on the CPU, where reading them is free."""
        return self._uniform(shape) < probability

    def moved(self, drawn: Tensor) -> Tensor:
        """Copy a tensor from the CPU to the device without waiting for it."""
        return to_device(drawn, self.device)

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.stack([torch.rand(tuple(shape), generator=g) for g in self.generators])

    def integers(self, high: int) -> Tensor:
        """Sample uniform integers (B,) in [0, high)."""
        return self.moved(torch.cat([torch.randint(high, (1,), generator=g) for g in self.generators]))
