import warnings

import numpy as np
import pytest
import torch

from ldm.sampling import NoiseSchedule

SCHEDULE = NoiseSchedule.scaled_linear()


def test_published_timesteps() -> None:
    assert SCHEDULE.timesteps(10) == [1, 101, 201, 301, 401, 501, 601, 701, 801, 901]
    assert len(SCHEDULE.timesteps(60)) == 63
    assert SCHEDULE.timesteps(4, "quadratic") == [1, 89, 356, 801]


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("steps", [1, 7, 111, 333, 500, 501, 777, 1000])
def test_timesteps_ascend_within_the_schedule(steps: int, spacing) -> None:
    timesteps = SCHEDULE.timesteps(steps, spacing)
    assert timesteps == sorted(timesteps) and timesteps[0] >= 0 and timesteps[-1] <= 999
    if spacing == "quadratic" or steps > 500:
        assert len(timesteps) == steps


def test_betas_and_alpha_bar() -> None:
    assert SCHEDULE.betas[0].item() == pytest.approx(0.0015)
    assert SCHEDULE.betas[-1].item() == pytest.approx(0.0195)
    torch.testing.assert_close(SCHEDULE.alpha_bar[3], (1 - SCHEDULE.betas[:4]).prod())


def test_schedule_is_on_the_cpu_under_the_meta_device() -> None:
    """Models are built on the meta device to count parameters."""
    with torch.device("meta"):
        schedule = NoiseSchedule.scaled_linear()
        buffers = schedule.zero_terminal_snr().buffers()
    assert torch.equal(schedule.betas, SCHEDULE.betas)
    assert all(buffer.device.type == "cpu" for buffer in buffers.values())


@pytest.mark.filterwarnings("ignore:steps. 1 with")
@pytest.mark.parametrize("T", [2, 4, 5, 50, 1000])
def test_quadratic_timesteps_are_the_published_ones_in_the_schedule(T: int) -> None:
    """The published code: ((np.linspace(0, np.sqrt(T * .8), steps)) ** 2).astype(int) + 1."""
    schedule = NoiseSchedule.scaled_linear(steps=T)
    for steps in range(1, T + 1):
        published = (np.linspace(0, np.sqrt(T * 0.8), steps) ** 2).astype(int) + 1
        assert schedule.timesteps(steps, "quadratic") == published.clip(max=T - 1).tolist()


@pytest.mark.parametrize(
    ("steps", "spacing", "start"), [(1, "uniform", 1), (2, "uniform", 501), (1, "quadratic", 1)]
)
def test_too_few_steps_to_start_at_noise_warn(steps: int, spacing, start: int) -> None:
    with pytest.warns(UserWarning, match=f"starts at timestep {start} of 1000.* dpmpp_2m"):
        assert SCHEDULE.timesteps(steps, spacing)[-1] == start


@pytest.mark.parametrize(
    ("steps", "spacing"), [(1, "logsnr"), (3, "uniform"), (2, "quadratic"), (1000, "uniform")]
)
def test_enough_steps_do_not_warn(steps: int, spacing) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SCHEDULE.timesteps(steps, spacing)[-1] > 600
