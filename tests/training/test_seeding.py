"""Random state from a key."""

import random

import numpy as np
import torch

from ldm.training.seeding import seed_all


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_a_key_fixes_all_random_state_and_every_other_key_gives_another() -> None:
    keys = [(0, 0, 0, 0), (0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1), (23, 0, 10**7, 3)]
    draws = []
    for key in keys:
        seed_all(*key)
        draws.append(draw())
        draw()
        seed_all(*key)
        assert draw() == draws[-1]
    assert all(len({drawn[i] for drawn in draws}) == len(keys) for i in range(3))
