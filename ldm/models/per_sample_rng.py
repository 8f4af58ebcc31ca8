"""Random numbers of training, picture by picture: a function of (seed, number of the picture in the run) alone.

How many processes share a batch, or how many batches one step of the optimiser gathers, then changes nothing about the
noise, the timestep and the dropped styles that a picture gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.sampling.noise import draw, seeded


@dataclass(frozen=True)
class Turn:
    """Which of the run's pictures one process has in one batch; processes take turns, as `EpochSampler` deals.

    Attributes:
        seed: of the run.
        batch: batches of each process since the start of the run.
        rank: this process.
        processes: how many there are.
    """

    seed: int
    batch: int
    rank: int = 0
    processes: int = 1

    def seeds(self, count: int) -> list[int]:
        """Return a seed for each of the `count` pictures of the batch."""
        numbers = [(self.batch * count + i) * self.processes + self.rank for i in range(count)]
        return [int(np.random.SeedSequence((self.seed, n)).generate_state(1, np.uint64)[0]) for n in numbers]


class PictureDraws:
    """The random numbers of a batch, each picture's from a generator of its own.

    Args:
        turn: which pictures these are; None draws from torch's random state.
        count: B.
        device: where results go. The numbers are drawn on the CPU, the same for every device.
    """

    def __init__(self, turn: Turn | None, count: int, device: torch.device | str = "cpu") -> None:
        seeds = torch.randint(2**62, (count,)).tolist() if turn is None else turn.seeds(count)
        self.generators, self.device = seeded(seeds), device

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draw standard normal numbers (B, *shape)."""
        return draw((len(self.generators), *shape), self.generators, self.device)

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Draw numbers (B, *shape) in [0, 1)."""
        return torch.stack([torch.rand(tuple(shape), generator=g) for g in self.generators]).to(self.device)

    def integers(self, high: int) -> Tensor:
        """Draw whole numbers (B,) in 0 .. high - 1."""
        return torch.cat([torch.randint(high, (1,), generator=g) for g in self.generators]).to(self.device)
