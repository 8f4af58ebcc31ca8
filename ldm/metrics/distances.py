"""Distances between the distributions of two sets of features, (N, D) and (M, D)."""

import math
import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

KID_SUBSET = 1000  # arXiv 1801.01401


def frechet(found: Tensor, real: Tensor) -> float:
    """Return the Fréchet distance between Gaussians fitted to the two sets (arXiv 1706.08500, eq. 6).

    FID with Inception features, FD-DINOv2 with DINOv2 features. Biased: it decreases with the size of the
    sets.

    Raises:
        ValueError: fewer than two features in a set, different widths D, or non-finite values.
    """
    _check(found, real, 2)
    measure = FrechetInceptionDistance(feature=_Precomputed(found.shape[1]), sync_on_compute=False)
    measure.set_dtype(torch.float64)
    return _between(measure, found.double(), real.double())


def kid(found: Tensor, real: Tensor, subsets: int = 100) -> float:
    """Return the squared MMD with a cubic kernel (arXiv 1801.01401, eq. 4), averaged over random subsets; unbiased.

    Raises:
        ValueError: fewer than two features in a set, different widths D, or non-finite values.
    """
    _check(found, real, 2)
    size = min(KID_SUBSET, len(found), len(real))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # about memory; the features are in memory anyway
        measure = KernelInceptionDistance(
            sync_on_compute=False,  # only rank 0 computes metrics
            feature=_Precomputed(found.shape[1]),
            subsets=1 if size == len(found) == len(real) else subsets,  # every subset is the whole set
            subset_size=size,
        )
        torch.manual_seed(0)
        return _between(measure, found.double(), real.double())


def cmmd(found: Tensor, real: Tensor, sigma: float = 10.0, block: int = 1024) -> float:
    """Return 1000 times the squared MMD with the kernel exp(-|x - y|^2 / 2 sigma^2) (arXiv 2401.09603).

    Args:
        found: CLIP features (N, D) of length 1.
        real: CLIP features (M, D) of length 1.
        sigma: width of the kernel.
        block: rows of the kernel matrix computed at once, to bound memory.

    Raises:
        ValueError: an empty set, different widths D, or non-finite values.
    """
    _check(found, real, 1)

    def mean_kernel(x: Tensor, y: Tensor) -> float:
        total = sum(
            float(torch.exp(-torch.cdist(rows, y).square() / (2 * sigma**2)).sum()) for rows in x.split(block)
        )
        return total / (len(x) * len(y))

    x, y = found.double(), real.double()
    return 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


class _Precomputed(nn.Module):
    """Identity in place of the feature network of torchmetrics, for precomputed features."""

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
            f"features must have shapes (N, D) and (M, D) with N and M at least {least}, "
            f"got {tuple(found.shape)} and {tuple(real.shape)}"
        )
    if not all(math.isfinite(float(part.sum())) for part in (found, real)):
        raise ValueError("features are not finite; check the weights of the feature network")
