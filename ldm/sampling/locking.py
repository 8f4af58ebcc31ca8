"""Locked edits: keep part of the data fixed while the rest is sampled."""

from torch import Tensor

from ldm.sampling.predict import Predict, TimedPredict, evaluate
from ldm.sampling.schedule import NoiseSchedule


def lock(predict: Predict, schedule: NoiseSchedule, x0: Tensor, free: Tensor) -> Predict:
    """Return a prediction that uses the known data outside `free`.

    There, eps is the noise between x0 and x, eps = (x - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar). Every
    solver then keeps x0, at the noise level of each step, outside `free`.

    Args:
        predict: noise prediction of the network.
        schedule: noise schedule of the model.
        x0: data to keep (B, C, h, w).
        free: mask that broadcasts to x: 1 where `predict` is used, 0 where x0 is kept.
    """
    bar = schedule.alpha_bar.tolist()

    def locked(x: Tensor, t: Tensor, timestep: int) -> Tensor:
        a = bar[timestep]
        known = (x - a**0.5 * x0) / (1 - a) ** 0.5
        return free * evaluate(predict, x, t, timestep) + (1 - free) * known

    return TimedPredict(locked)
