"""Power-function averages: their closed forms, and every length from a few of them."""

import pytest
import torch
from torch import Tensor

from ldm.modules.power_ema import PowerEMA, Profile, combination, combine, exponent

STEPS = 400
PATH = torch.randn(STEPS, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0)


def average(sigma_rel: float, step: int, path: Tensor = PATH) -> Tensor:
    """Return the average after `step`: each step weighs what its profile has over it, (k^g - (k-1)^g) / step^g."""
    k = torch.arange(step + 1, dtype=torch.float64) / step
    return (k ** (exponent(sigma_rel) + 1)).diff() @ path[:step].double()


def tracked(sigma_rel: float) -> dict[int, dict[str, Tensor]]:
    """Return what PowerEMA holds after every 20 steps along the path."""
    ema, kept = PowerEMA({"w": torch.full((5,), 1e3)}, sigma_rel), {}
    for step, weights in enumerate(PATH, 1):
        ema.update({"w": weights}, step)
        if step % 20 == 0:
            kept[step] = {"w": ema.weights["w"].clone()}
    return kept


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.25])
def test_the_length_is_the_spread_of_the_profile(sigma_rel: float) -> None:
    tau = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    profile = (exponent(sigma_rel) + 1) * tau ** exponent(sigma_rel)
    mean = torch.trapezoid(profile * tau, tau)
    variance = torch.trapezoid(profile * (tau - mean) ** 2, tau)
    assert float(variance.sqrt()) == pytest.approx(sigma_rel, rel=1e-5)


def test_running_averages_are_the_weighted_sum_of_all_steps() -> None:
    for step, weights in tracked(0.07).items():
        torch.testing.assert_close(weights["w"].double(), average(0.07, step), rtol=1e-4, atol=1e-4)


def test_a_length_that_was_tracked_is_itself() -> None:
    kept = [Profile(step, sigma) for step in (100, 200, 300) for sigma in (0.05, 0.1)]
    expected = [float(profile == Profile(300, 0.1)) for profile in kept]
    assert combination(kept, 0.1) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sigma_rel", [0.04, 0.07, 0.14, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_any_length_follows_from_two_that_were_tracked(sigma_rel: float, dtype: torch.dtype) -> None:
    runs = {sigma: tracked(sigma) for sigma in (0.05, 0.1)}
    kept = [Profile(step, sigma) for sigma, run in runs.items() for step in run]
    averages = [{"w": runs[profile.sigma_rel][profile.step]["w"].to(dtype)} for profile in kept]
    coefficients = combination(kept, sigma_rel)
    assert sum(coefficients) == pytest.approx(1, abs=1e-6)
    found, expected = combine(averages, coefficients)["w"].double(), average(sigma_rel, STEPS)
    moved = PATH.std(0).mean()  # how far the weights wander in the training
    assert float((found - expected).abs().max() / moved) < 1e-2


def test_lengths_that_no_average_has() -> None:
    for sigma_rel in (0.0, 0.3, -1.0):
        with pytest.raises(ValueError, match=r"sigma_rel must be in \(0, 0\.28\)"):
            exponent(sigma_rel)
