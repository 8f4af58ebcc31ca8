"""Keep a part of the picture while the rest is sampled."""

from torch import Tensor

from ldm.sampling.schedule import NoiseSchedule
from ldm.sampling.solvers import Predict


def lock(predict: Predict, schedule: NoiseSchedule, x0: Tensor, free: Tensor) -> Predict:
    """Return a prediction that knows the data outside `free`.

    There its noise is the one that makes x0 of x, eps = (x - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar): at every
    step every solver then blends x0, at that step's noise level, into what the network sees.

    Args:
        predict: the network's prediction of the noise.
        schedule: the one that the model was trained with.
        x0: the data to keep, like x.
        free: 1 where `predict` decides, 0 where x0 stays; broadcasts to x.
    """
    bar = schedule.alpha_bar.tolist()

    def locked(x: Tensor, t: Tensor) -> Tensor:
        a = bar[int(t[0])]
        known = (x - a**0.5 * x0) / (1 - a) ** 0.5
        return free * predict(x, t) + (1 - free) * known

    return locked
