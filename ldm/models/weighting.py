"""How much each timestep counts in the loss."""

import torch
from torch import Tensor


def min_snr_weights(alpha_bar: Tensor, gamma: float, parameterization: str) -> Tensor:
    """Return the min-SNR-gamma weights (T,) of the squared error (arXiv 2303.09556, section 3.4).

    min(SNR, gamma) / SNR where the network predicts eps, min(SNR, gamma) / (SNR + 1) where it predicts v, with
    SNR = alpha_bar / (1 - alpha_bar); scaled to a mean of 1, so that the learning rate keeps its meaning.

    Raises:
        ValueError: `gamma` is not positive.
    """
    if gamma <= 0:
        raise ValueError(f"min_snr_gamma is {gamma}; wanted 0 for none, or such as 5")
    snr = alpha_bar / (1 - alpha_bar)
    weights = snr.clamp(max=gamma) / (snr if parameterization == "eps" else snr + 1)
    return (weights / weights.mean()).to(torch.float32)
