"""Initialization for narrow first stages: an autoencoder that already transmits mean colors.

With the usual initialization, the latents of narrow networks represent luminance in detail and almost no
color (`docs/training.md`): every norm removes the mean of its channels, and by the time a channel could
learn color, its gradient has vanished with its variance. Here the network starts as the mean color of each
f x f block, smoothly upsampled, with the same architecture and weight names; training adds detail.

Channels 0..2 hold the colors and 3..5 their negatives, so that the swish before the last convolution is
lossless: silu(x) - silu(-x) = x.
"""

import torch
from torch import Tensor, nn

from ldm.modules.distributed import agree_on_first, whole_batch
from ldm.modules.vqgan import AttentionBlock, Decoder, Downsample, Encoder, ResnetBlock, Upsample

COLORS = 3
CARRIED = 2 * COLORS
QUIET = 0.1  # scale of the last convolution's weights for channels that carry no color yet


@torch.no_grad()
def carry_colors(encoder: Encoder, decoder: Decoder) -> None:
    """Initialize encoder and decoder as color averaging and smooth upsampling.

    Raises:
        ValueError: the networks normalize, have fewer than six channels, or do not map three channels to
            three.
    """
    for half in (encoder, decoder):
        _check(half)
        for module in half.modules():
            if isinstance(module, ResnetBlock):
                _silence(module.conv2)
                if hasattr(module, "nin_shortcut"):
                    _carry(module.nin_shortcut, torch.ones(1, 1))
            elif isinstance(module, AttentionBlock):
                _silence(module.proj_out)
            elif isinstance(module, Downsample):
                mean = torch.zeros(3, 3)
                mean[:2, :2] = 1 / 4  # average of 2x2 pixels; padding is right and below
                _carry(module.conv, mean)
            elif isinstance(module, Upsample):
                tent = torch.tensor([1.0, 2.0, 1.0]) / 4
                _carry(module.conv, tent[:, None] * tent)
        _split(half.conv_in)
        _join(half.conv_out)


@torch.no_grad()
def whiten(quant_conv: nn.Conv2d, post_quant_conv: nn.Conv2d, features: Tensor) -> None:
    """Set both 1x1 convolutions to map features (B, D, h, w) to latents of zero mean and unit covariance, and back.

    Uses ZCA, the whitening closest to the identity (Bell and Sejnowski 1997). The statistics include the
    features of all processes.
    """
    pixels = whole_batch(features).transpose(0, 1).flatten(1).cpu().double()  # D B*h*w; MPS has no float64
    mean = pixels.mean(1)
    variances, axes = torch.linalg.eigh(pixels.cov())
    scale = variances.clamp(min=1e-4 * variances.max().item() + 1e-12).sqrt()
    forward, back = axes / scale @ axes.T, axes * scale @ axes.T
    for conv, matrix, bias in ((quant_conv, forward, -forward @ mean), (post_quant_conv, back, mean)):
        conv.weight.copy_(matrix[:, :, None, None])
        if conv.bias is not None:
            conv.bias.copy_(bias)
    agree_on_first(*quant_conv.parameters(), *post_quant_conv.parameters())


def _check(half: Encoder | Decoder) -> None:
    """Raise ValueError for a network that cannot transmit the mean colors."""
    first, last = half.conv_in, half.conv_out
    if not isinstance(half.norm_out, nn.Identity):
        raise ValueError("start_from_means requires norm_groups: 0, because norms would change the colors")
    narrowest = min(m.out_channels for m in half.modules() if isinstance(m, nn.Conv2d) and m is not last)
    if narrowest < CARRIED:
        raise ValueError(
            f"start_from_means requires at least {CARRIED} channels in every layer, got {narrowest}"
        )
    if first.in_channels != COLORS or last.out_channels != COLORS:
        raise ValueError(
            f"start_from_means requires 3 image channels and z_channels: 3, got a network from {first.in_channels} "
            f"to {last.out_channels} channels"
        )


def _silence(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


def _carry(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Make each carried channel depend only on itself, through `kernel`."""
    conv.weight[:CARRIED] = 0
    conv.bias[:CARRIED] = 0  # type: ignore[index]
    for i in range(CARRIED):
        conv.weight[i, i] = kernel


def _split(conv: nn.Conv2d) -> None:
    """Make a 3x3 convolution output its three inputs and their negatives first."""
    conv.weight[:CARRIED] = 0
    conv.bias[:CARRIED] = 0  # type: ignore[index]
    for i in range(COLORS):
        conv.weight[i, i, 1, 1], conv.weight[COLORS + i, i, 1, 1] = 1, -1


def _join(conv: nn.Conv2d) -> None:
    """Make a 3x3 convolution after a swish output the carried colors and little of the other channels."""
    conv.weight *= QUIET
    conv.weight[:, :CARRIED] = 0
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    for i in range(COLORS):
        conv.weight[i, i, 1, 1], conv.weight[i, COLORS + i, 1, 1] = 1, -1
