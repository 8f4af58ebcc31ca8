import pytest
import torch
from torch import Tensor

from ldm.metrics.distances import cmmd, frechet, kid


def features(count: int, width: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("measure", [frechet, cmmd])
def test_equal_sets_have_distance_zero(measure) -> None:
    x = features(200)
    assert measure(x, x.flip(0)) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    x = features(400)
    x = x - x.mean(0)
    shift = torch.arange(6.0, dtype=torch.float64)
    covariance = x.T.cov()
    # |m|^2 + Tr(S + 9 S - 2 (9 S S)^(1/2)) = |m|^2 + 4 Tr S
    expected = float(shift.square().sum() + 4 * covariance.trace())
    assert frechet(3 * x + shift, x) == pytest.approx(expected, rel=1e-5)


def test_kid_is_the_unbiased_estimate() -> None:
    x, y = features(12, seed=1), features(12, seed=2) + 0.5

    def k(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / 6 + 1) ** 3

    def off_diagonal_mean(a: Tensor) -> Tensor:
        matrix = k(a, a)
        return (matrix.sum() - matrix.diagonal().sum()) / (12 * 11)

    expected = float(off_diagonal_mean(x) + off_diagonal_mean(y) - 2 * k(x, y).mean())
    assert kid(x, y) == pytest.approx(expected, rel=1e-6)


def test_kid_is_unbiased_for_small_sets() -> None:
    small = [kid(features(20, seed=2 * i), features(20, seed=2 * i + 1)) for i in range(30)]
    mean = sum(small) / len(small)
    spread = (sum((value - mean) ** 2 for value in small) / len(small)) ** 0.5
    assert abs(mean) < 3 * spread / len(small) ** 0.5
    assert kid(features(20), features(20, seed=1) + 2) > 10 * spread


def test_kid_is_deterministic_and_keeps_the_random_state() -> None:
    x, y = features(30), features(50, seed=1)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = kid(x, y)
    assert torch.equal(torch.rand(1), expected)
    assert kid(x, y) == first


def test_cmmd_of_two_points_is_the_closed_form() -> None:
    x, y = torch.zeros(1, 3), torch.tensor([[3.0, 4.0, 0.0]])
    expected = 1000 * (2 - 2 * torch.exp(torch.tensor(-25.0 / 200))).item()
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-6)


def test_cmmd_does_not_depend_on_the_block_size() -> None:
    x, y = features(7), features(5, seed=1)
    assert cmmd(x, y, block=2) == pytest.approx(cmmd(x, y), rel=1e-9)


@pytest.mark.parametrize("measure", [frechet, kid, cmmd])
def test_invalid_features_are_refused(measure) -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(3, 5\)"):
        measure(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="not finite"):
        measure(torch.full((3, 4), torch.nan), torch.zeros(3, 4))
