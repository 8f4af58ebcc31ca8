"""Draws of single pictures."""

import torch

from ldm.models.conditioning_dropout import StyleDropout
from ldm.models.per_sample_rng import BatchIndex, PerSampleRNG


def drawn(batch_index: BatchIndex | None, count: int) -> list[torch.Tensor]:
    rng = PerSampleRNG(batch_index, count)
    return [rng.integers(1000), rng.normal((3, 2)), rng.uniform((4, 1)), rng.uniform()]


def test_they_are_the_same_however_a_batch_is_shared_or_gathered() -> None:
    alone = drawn(BatchIndex(23, batch=3), 8)
    shares = [drawn(BatchIndex(23, 3, rank, processes=2), 4) for rank in (0, 1)]
    gathered = [drawn(BatchIndex(23, batch), 2) for batch in (12, 13, 14, 15)]
    for i, whole in enumerate(alone):
        assert torch.equal(torch.stack([share[i] for share in shares], 1).flatten(0, 1), whole)
        assert torch.equal(torch.cat([part[i] for part in gathered]), whole)


def test_every_picture_and_every_seed_has_its_own() -> None:
    seeds = [seed for run in (0, 23) for batch in range(50) for seed in BatchIndex(run, batch).seeds(8)]
    assert len(set(seeds)) == len(seeds) == 800
    integers, normal, uniform, _ = drawn(BatchIndex(0, 0), 500)
    assert 0 <= integers.min() < 20 and 980 < integers.max() < 1000
    assert normal.shape == (500, 3, 2) and abs(normal.mean()) < 0.06 and abs(normal.std() - 1) < 0.04
    assert uniform.shape == (500, 4, 1) and uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.03


def test_without_a_turn_they_follow_torchs_random_state() -> None:
    torch.manual_seed(5)
    first, second = drawn(None, 4), drawn(None, 4)
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(None, 4), strict=True))
    assert not torch.equal(first[1], second[1])


def test_styles_are_dropped_by_the_pictures_draws() -> None:
    def dropped(batch_index: BatchIndex, count: int) -> torch.Tensor:
        dropout, ones = StyleDropout(image=0.5, region=0.3, mask=0.3), torch.ones(count, 4, 2, 2)

        def encode(image: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return image.amax((1, 2, 3))[:, None, None].expand(-1, 4, 5)

        return dropout(encode, ones[:, :3], ones, PerSampleRNG(batch_index, count))[0]

    parts = [dropped(BatchIndex(1, 0, rank, processes=2), 10) for rank in (0, 1)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), dropped(BatchIndex(1, 0), 20))
    assert 0 < parts[0].mean() < 1


def test_noise_does_not_change_the_other_numbers() -> None:
    """A GPU draws its own noise: dropout would otherwise depend on the device."""
    with_noise, without = (PerSampleRNG(BatchIndex(23, 3), 4) for _ in range(2))
    first, second = with_noise.normal((3, 2)), with_noise.normal((3, 2))
    assert torch.equal(with_noise.uniform((5,)), without.uniform((5,)))
    assert not torch.equal(first, second)
