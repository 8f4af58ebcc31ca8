"""Solvers on data whose optimal noise prediction is known in closed form."""

import pytest
import torch
from torch import Tensor

from ldm.sampling import SOLVERS, NoiseSchedule, guide, invert, sample
from ldm.sampling.noise import draw, seeded
from ldm.sampling.solvers import Predict

MEAN, STD = 1.5, 0.4
SCHEDULE = NoiseSchedule.scaled_linear()


def gaussian(schedule: NoiseSchedule = SCHEDULE) -> Predict:
    """Return the optimal eps(x, t) for data from N(MEAN, STD^2)."""
    bar = schedule.alpha_bar

    def predict(x: Tensor, t: Tensor) -> Tensor:
        a = bar[t].view(-1, *[1] * (x.ndim - 1))
        return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)

    return predict


def noise(count: int = 4096, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("solver", "steps", "eta"),
    [("ddim", 200, 0.0), ("ddim", 500, 1.0), ("ddpm", 1000, 0.0), ("plms", 50, 0.0)],
)
def test_samples_have_the_distribution_of_the_data(solver: str, steps: int, eta: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = sample(gaussian(), noise(), SCHEDULE, steps=steps, solver=solver, eta=eta, generator=generator)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert x.std().item() == pytest.approx(STD, rel=0.05)


def test_ddim_converges_and_plms_is_more_accurate() -> None:
    exact = sample(gaussian(), noise(64), SCHEDULE, steps=1000)
    errors = {
        (solver, steps): (sample(gaussian(), noise(64), SCHEDULE, steps=steps, solver=solver) - exact)
        .abs()
        .max()
        for solver, steps in [("ddim", 10), ("ddim", 50), ("ddim", 200), ("plms", 50)]
    }
    assert errors["ddim", 10] > errors["ddim", 50] > errors["ddim", 200]
    assert errors["plms", 50] < errors["ddim", 50] / 3


def test_ddim_step_is_the_closed_form() -> None:
    schedule = NoiseSchedule.scaled_linear(steps=1000)
    bar, x, eps = schedule.alpha_bar, noise(3), noise(3, seed=5)
    found = sample(lambda x, t: eps, x, schedule, steps=1)  # timestep 1
    x0 = (x - (1 - bar[1]).sqrt() * eps) / bar[1].sqrt()
    torch.testing.assert_close(found, bar[0].sqrt() * x0 + (1 - bar[0]).sqrt() * eps)


def test_ddpm_step_has_the_mean_and_variance_of_the_posterior() -> None:
    T = 20
    schedule = NoiseSchedule.scaled_linear(steps=T)
    known, x = schedule.buffers(), noise(20000)
    calls: list[Tensor] = []

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        calls.append(xt.clone())
        return 0.3 * xt

    sample(predict, x, schedule, steps=T, solver="ddpm", generator=torch.Generator().manual_seed(3))
    assert len(calls) == T
    t, (before, after) = T - 1, calls[:2]
    bar = schedule.alpha_bar
    x0 = (before - (1 - bar[t]).sqrt() * 0.3 * before) / bar[t].sqrt()
    residual = after - known["posterior_mean_coef1"][t] * x0 - known["posterior_mean_coef2"][t] * before
    assert residual.mean().abs() < 0.01
    assert residual.var().item() == pytest.approx(known["posterior_variance"][t].item(), rel=0.05)


def test_inversion_round_trip() -> None:
    data = MEAN + STD * noise(64)
    latent = invert(gaussian(), data, SCHEDULE, steps=200)
    assert latent.mean().abs() < 0.4
    assert latent.std().item() == pytest.approx(1, rel=0.3)
    torch.testing.assert_close(sample(gaussian(), latent, SCHEDULE, steps=200), data, atol=0.05, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 60, 111, 333, 500, 501, 750, 999, 1000])
def test_any_number_of_steps(solver: str, steps: int) -> None:
    seen: list[int] = []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return gaussian()(x, t)

    reports: list[tuple[int, int]] = []
    x = sample(predict, noise(4), SCHEDULE, steps=steps, solver=solver, progress=lambda *r: reports.append(r))
    assert x.isfinite().all()
    assert seen[0] == max(seen) and min(seen) >= 0 and max(seen) < 1000
    assert [done for done, _ in reports] == list(range(1, reports[-1][1] + 1))


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_sample_of_a_seed_does_not_depend_on_the_batch(solver: str) -> None:
    def run(seeds: list[int]) -> Tensor:
        generators = seeded(seeds)
        x = draw((len(seeds), 3, 4, 4), generators)
        eta = 0.7 if solver == "ddim" else 0.0
        return sample(gaussian(), x, SCHEDULE, steps=20, solver=solver, eta=eta, generator=generators)

    together = run([5, 6, 7])
    assert torch.equal(run([6])[0], together[1])
    assert not torch.equal(together[0], together[1])


def test_guidance_extrapolates_from_the_null_prediction() -> None:
    x, t = pixels(2), torch.zeros(2, dtype=torch.long)
    torch.testing.assert_close(guide(times, full(3), full(1), 2.0)(x, t), 5 * x)
    torch.testing.assert_close(guide(times, full(3), full(1), 0.0)(x, t), x)
    torch.testing.assert_close(guide(times, full(3), full(1), 1.0)(x, t), 3 * x)


def pixels(count: int) -> Tensor:
    return noise(16 * count).view(count, 1, 4, 4)


def full(value: float) -> dict[str, list[Tensor | None]]:
    """Return a nested conditioning of two images."""
    return {"parts": [torch.full((2, 1, 1, 1), value), None]}


def times(x: Tensor, t: Tensor, cond: dict) -> Tensor:
    return x * cond["parts"][0]


def test_guidance_takes_one_pass_and_only_while_active() -> None:
    sizes: list[int] = []
    prepared: list[int] = []

    def apply_model(x: Tensor, t: Tensor, cond: dict) -> Tensor:
        sizes.append(len(x))
        return times(x, t, cond)

    def prepare(cond: dict) -> dict:
        prepared.append(len(cond["parts"][0]))
        return cond

    x = pixels(2)
    predict = guide(apply_model, full(3), full(1), 2.0, prepare=prepare, active=lambda t: t >= 500)
    torch.testing.assert_close(predict(x, torch.tensor([900, 900])), 5 * x)
    torch.testing.assert_close(predict(x, torch.tensor([100, 100])), 3 * x)
    assert sizes == [4, 2] and prepared == [4]
    predict = guide(apply_model, full(3), full(1), 1, prepare=prepare)
    torch.testing.assert_close(predict(x, torch.tensor([900, 900])), 3 * x)
    assert sizes == [4, 2, 2] and prepared == [4, 2]


def test_guidance_scale_per_pixel() -> None:
    scale = torch.ones(2, 1, 4, 4)
    scale[..., 2:] = 3
    x = pixels(2)
    found = guide(times, full(3), full(1), scale)(x, torch.tensor([5, 5]))
    torch.testing.assert_close(found[..., :2], 3 * x[..., :2])
    torch.testing.assert_close(found[..., 2:], 7 * x[..., 2:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "dimm"}, "'dimm'; available: ddim"),
        ({"steps": 0}, r"steps must be in \[1, 1000\]"),
        ({"steps": 1001}, r"steps must be in \[1, 1000\]"),
        ({"steps": 0, "solver": "ddpm"}, r"steps must be in \[1, 1000\]"),
        ({"spacing": "cubic"}, "'cubic'; available: quadratic"),
        ({"solver": "plms", "eta": 0.5}, "eta must be 0 with the solver plms, got 0.5"),
        ({"solver": "unipc", "order": 4}, "order must be 1, 2 or 3 with unipc .*got 4"),
        ({"order": 2}, "order must be .*got 2"),
        ({"eta": -1.0}, "eta must be in \\[0, 1\\], got -1.0"),
    ],
)
def test_invalid_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(gaussian(), noise(2), SCHEDULE, **{"steps": 10, **settings})


def test_settings_that_ddpm_ignores_warn() -> None:
    with pytest.warns(UserWarning, match="ignores eta and spacing"):
        sample(gaussian(), noise(2), SCHEDULE, steps=3, solver="ddpm", eta=0.5)


def test_number_of_generators() -> None:
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        draw((3, 1), seeded([1, 2]))
