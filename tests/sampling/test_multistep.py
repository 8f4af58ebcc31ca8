"""Multistep solvers, against diffusers step by step and on data with a known optimal prediction."""

from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from ldm.sampling import NoiseSchedule, sample
from ldm.sampling.multistep import Level, dpmpp_2m, unipc
from ldm.sampling.schedule import SPACINGS
from ldm.sampling.solvers import Predict

# diffusers converts a tensor in a way that numpy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEDULE = NoiseSchedule.scaled_linear()
BETAS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}


def mixture(schedule: NoiseSchedule = SCHEDULE, modes: int = 5, size: int = 16) -> Predict:
    """Return the optimal eps(x, t) for a mixture of Gaussians in `size` dimensions."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(modes, size, generator=generator, dtype=torch.float64)
    spreads = torch.rand(modes, 1, generator=generator, dtype=torch.float64) * 0.4 + 0.1
    bar = schedule.alpha_bar

    def predict(x: Tensor, t: Tensor) -> Tensor:
        a = bar[t][:, None, None]  # B 1 1
        variance = a * spreads**2 + 1 - a  # B K 1
        offset = x[:, None].double() - a.sqrt() * means  # B K D
        likelihood = -(offset**2 / variance).sum(2) / 2 - size / 2 * variance[..., 0].log()
        share = likelihood.softmax(1)[..., None]  # B K 1
        return ((1 - a).sqrt() * share * offset / variance).sum(1).to(x.dtype)

    return predict


def noise(count: int = 256, size: int = 16) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def distance(x: Tensor, exact: Tensor) -> float:
    """Return the median over samples of the root mean square error."""
    return (x - exact).square().mean(1).sqrt().median().item()


def test_20_steps_are_more_accurate_than_100_of_ddim() -> None:
    def end(steps: int, **how: str) -> Tensor:
        return sample(mixture(), noise(), SCHEDULE, steps=steps, **how)

    exact = end(1000)
    ddim = distance(end(100), exact)
    for solver in ("dpmpp_2m", "unipc"):
        assert distance(end(20, solver=solver, spacing="logsnr"), exact) < ddim / 2, solver
        errors = [distance(end(n, solver=solver, spacing="logsnr"), exact) for n in (5, 10, 20)]
        assert errors == sorted(errors, reverse=True)


def test_order_of_unipc_follows_the_number_of_steps() -> None:
    for steps, best in ((5, 2), (12, 2), (13, 3), (20, 3)):

        def end(order: int | None, steps: int = steps) -> Tensor:
            return sample(
                mixture(), noise(), SCHEDULE, steps=steps, solver="unipc", spacing="logsnr", order=order
            )

        ends = {order: end(order) for order in (1, 2, 3)}
        assert torch.equal(end(None), ends[best])
        assert not any(torch.equal(ends[best], x) for order, x in ends.items() if order != best)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc2", "unipc3"])
def test_steps_equal_those_of_diffusers(solver: str, spacing) -> None:
    steps = 12
    nodes = SCHEDULE.nodes(steps, spacing)
    bar = SCHEDULE.alpha_bar.tolist()
    predict = mixture()
    if solver == "dpmpp_2m":
        theirs = DPMSolverMultistepScheduler(
            **BETAS, solver_order=2, lower_order_final=False, final_sigmas_type="sigma_min"
        )
    else:
        theirs = UniPCMultistepScheduler(
            **BETAS, solver_order=int(solver[-1]), lower_order_final=False, final_sigmas_type="sigma_min"
        )
    theirs.set_timesteps(steps)
    theirs.timesteps = torch.tensor(nodes[:-1])
    theirs.sigmas = torch.tensor([((1 - bar[t]) / bar[t]) ** 0.5 for t in nodes], dtype=torch.float64)

    x = noise(8)
    states = []  # inputs of the network in diffusers
    for t in theirs.timesteps:
        states.append(x)
        x = theirs.step(predict(x, t.expand(len(x))), t, x).prev_sample

    inputs: list[Tensor] = []

    def data(x: Tensor, t: int) -> Tensor:
        inputs.append(x)
        return (x - (1 - bar[t]) ** 0.5 * predict(x, torch.tensor(t).expand(len(x)))) / bar[t] ** 0.5

    levels = [Level.of(t, bar[t]) for t in nodes]
    if solver == "dpmpp_2m":
        found = dpmpp_2m(data, noise(8), levels, None)
    else:
        found = unipc(data, noise(8), levels, None, order=int(solver[-1]))
    for step, (ours, their) in enumerate(zip(inputs, states, strict=True)):
        torch.testing.assert_close(ours, their, rtol=1e-5, atol=1e-6, msg=lambda m, s=step: f"step {s}: {m}")
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 20, 333, 999])
def test_nodes_descend_from_the_last_timestep_to_the_first(steps: int, spacing) -> None:
    nodes = SCHEDULE.nodes(steps, spacing)
    assert len(nodes) == steps + 1 and nodes[0] == 999 and nodes[-1] == 0
    assert all(t > below for t, below in pairwise(nodes))


def test_logsnr_nodes_are_evenly_spaced_in_log_snr() -> None:
    bar = SCHEDULE.alpha_bar[SCHEDULE.nodes(10, "logsnr")]
    logsnr = (bar / (1 - bar)).log()
    torch.testing.assert_close(logsnr, torch.linspace(*logsnr[[0, -1]], 11).double(), rtol=0, atol=0.15)


def test_ddim_on_logsnr_timesteps() -> None:
    timesteps = SCHEDULE.timesteps(10, "logsnr")
    assert timesteps == sorted(timesteps) and len(timesteps) == 10
    assert timesteps[-1] == 999 and timesteps[0] > 0
    exact = sample(mixture(), noise(), SCHEDULE, steps=1000)
    assert distance(sample(mixture(), noise(), SCHEDULE, steps=50, spacing="logsnr"), exact) < 0.05


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc"])
def test_one_evaluation_per_step(solver: str) -> None:
    calls: list[int] = []
    reports: list[tuple[int, int]] = []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        calls.append(int(t[0]))
        return x

    def report(done: int, total: int) -> None:
        reports.append((done, total))

    sample(predict, noise(2), SCHEDULE, steps=7, solver=solver, progress=report)
    assert len(calls) == 7 and calls == sorted(calls, reverse=True)
    assert reports == [(i, 7) for i in range(1, 8)]
