"""Locked edits: keep part of the data fixed while the rest is sampled."""

from torch import Tensor

from ldm.sampling.schedule import NoiseSchedule
from ldm.sampling.solvers import Predict


def lock(predict: Predict, schedule: NoiseSchedule, x0: Tensor, free: Tensor) -> Predict:
    """Return a prediction that uses the known data outside `free`.

    There, eps is the noise between x0 and x, eps = (x - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar). Every solver then
    keeps x0, at the noise level of each step, outside `free`.

    Args:
        predict: noise prediction of the network.
        schedule: noise schedule of the model.
        x0: data to keep (B, C, h, w).
        free: mask that broadcasts to x: 1 where `predict` is used, 0 where x0 is kept.
    """
    bar = schedule.alpha_bar.tolist()

    def locked(x: Tensor, t: Tensor) -> Tensor:
        a = bar[int(t[0])]
        known = (x - a**0.5 * x0) / (1 - a) ** 0.5
        return free * predict(x, t) + (1 - free) * known

    return locked
