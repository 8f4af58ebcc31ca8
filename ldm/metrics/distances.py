"""Distances between two sets of features: (N, D) and (M, D)."""

import math
import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

KID_SUBSET = 1000  # as published


def frechet(found: Tensor, real: Tensor) -> float:
    """Return the Fréchet distance of the Gaussians with the sets' means and covariances (arXiv 1706.08500, eq. 6).

    FID with Inception's features, FD-DINOv2 with DINOv2's. Biased: it falls as the sets grow.

    Raises:
        ValueError: fewer than two features in a set, or features of different widths.
    """
    _check(found, real, 2)
    measure = FrechetInceptionDistance(feature=_Given(found.shape[1]), sync_on_compute=False)
    measure.set_dtype(torch.float64)
    return _between(measure, found.double(), real.double())


def kid(found: Tensor, real: Tensor, subsets: int = 100) -> float:
    """Return the squared MMD under a cubic kernel (arXiv 1801.01401, eq. 4), mean over random subsets; unbiased.

    Raises:
        ValueError: fewer than two features in a set, or features of different widths.
    """
    _check(found, real, 2)
    size = min(KID_SUBSET, len(found), len(real))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter(
            "ignore", UserWarning
        )  # says that it keeps the features, which are here already
        measure = KernelInceptionDistance(
            sync_on_compute=False,  # one process scores; the others do not take part
            feature=_Given(found.shape[1]),
            subsets=1 if size == len(found) == len(real) else subsets,  # then every subset is the whole
            subset_size=size,
        )
        torch.manual_seed(0)
        return _between(measure, found.double(), real.double())


def cmmd(found: Tensor, real: Tensor, sigma: float = 10.0, block: int = 1024) -> float:
    """Return 1000 times the squared MMD under the kernel exp(-|x - y|^2 / 2 sigma^2) (arXiv 2401.09603).

    Args:
        found: CLIP features of length 1.
        real: the same.
        sigma: the kernel's width.
        block: rows at a time, for memory.

    Raises:
        ValueError: an empty set, or features of different widths.
    """
    _check(found, real, 1)

    def mean_kernel(x: Tensor, y: Tensor) -> float:
        total = sum(
            float(torch.exp(-torch.cdist(rows, y).square() / (2 * sigma**2)).sum()) for rows in x.split(block)
        )
        return total / (len(x) * len(y))

    x, y = found.double(), real.double()
    return 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


class _Given(nn.Module):
    """Stands where torchmetrics has a network: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _between(
    measure: FrechetInceptionDistance | KernelInceptionDistance, found: Tensor, real: Tensor
) -> float:
    measure.update(real, real=True)
    measure.update(found, real=False)
    value = measure.compute()
    return float(value[0] if isinstance(value, tuple) else value)


def _check(found: Tensor, real: Tensor, least: int) -> None:
    if (
        found.ndim != 2
        or real.ndim != 2
        or found.shape[1] != real.shape[1]
        or min(len(found), len(real)) < least
    ):
        raise ValueError(
            f"features {tuple(found.shape)} and {tuple(real.shape)}; wanted (N, D) and (M, D), N and M at least {least}"
        )
    if not all(math.isfinite(float(part.sum())) for part in (found, real)):
        raise ValueError(
            "features that are not finite; the network that made them, or its weights, are damaged"
        )
