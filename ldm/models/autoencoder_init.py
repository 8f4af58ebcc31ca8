"""A start for small first stages: an autoencoder that already carries the colours of each place.

Narrow networks with the usual start end with latents that know light in detail and hardly any colour
(`docs/training.md`): every norm forgets the mean of its channels, and by the time a channel could learn colour its
gradient has vanished with its variance. Here the network begins as the mean colour of every f x f pixels, smoothly
enlarged, in the same architecture and with the same weight names; training adds detail to that.

Channels 0..2 hold the colours and 3..5 their negatives, so that the swish before the last convolution loses
nothing: silu(x) - silu(-x) = x.
"""

import torch
from torch import Tensor, nn

from ldm.modules.distributed import agree_on_first, whole_batch
from ldm.modules.vqgan import AttentionBlock, Decoder, Downsample, Encoder, ResnetBlock, Upsample

COLOURS = 3
CARRIED = 2 * COLOURS
QUIET = 0.1  # of their usual size, the last convolution's weights for channels that carry no colour yet


@torch.no_grad()
def carry_colours(encoder: Encoder, decoder: Decoder) -> None:
    """Set the weights of both halves so that they begin as colour means and their smooth enlargement.

    Raises:
        ValueError: the networks normalise, have fewer than six channels, or do not map three channels to three.
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
                mean[:2, :2] = 1 / 4  # the four pixels that become one; padding is right and below
                _carry(module.conv, mean)
            elif isinstance(module, Upsample):
                tent = torch.tensor([1.0, 2.0, 1.0]) / 4
                _carry(module.conv, tent[:, None] * tent)
        _split(half.conv_in)
        _join(half.conv_out)


@torch.no_grad()
def whiten(quant_conv: nn.Conv2d, post_quant_conv: nn.Conv2d, features: Tensor) -> None:
    """Set both 1x1 convolutions: features (B, D, h, w) to latents of zero mean and unit covariance, and back.

    Of all whitenings it takes the one closest to the identity (ZCA; Bell and Sejnowski 1997). Several processes
    whiten the features of all.
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
    """Raise ValueError for a network that cannot carry colours."""
    first, last = half.conv_in, half.conv_out
    if not isinstance(half.norm_out, nn.Identity):
        raise ValueError("start_from_means wants norm_groups: 0, since norms would change the colours")
    narrowest = min(m.out_channels for m in half.modules() if isinstance(m, nn.Conv2d) and m is not last)
    if narrowest < CARRIED:
        raise ValueError(f"start_from_means wants at least {CARRIED} channels everywhere; found {narrowest}")
    if first.in_channels != COLOURS or last.out_channels != COLOURS:
        raise ValueError(
            f"start_from_means is for three colours and z_channels 3; found a network from {first.in_channels} "
            f"to {last.out_channels} channels"
        )


def _silence(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


def _carry(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Have each of the carried channels depend on itself alone, through `kernel`."""
    conv.weight[:CARRIED] = 0
    conv.bias[:CARRIED] = 0  # type: ignore[index]
    for i in range(CARRIED):
        conv.weight[i, i] = kernel


def _split(conv: nn.Conv2d) -> None:
    """Have a 3x3 convolution begin with its three inputs and their negatives."""
    conv.weight[:CARRIED] = 0
    conv.bias[:CARRIED] = 0  # type: ignore[index]
    for i in range(COLOURS):
        conv.weight[i, i, 1, 1], conv.weight[COLOURS + i, i, 1, 1] = 1, -1


def _join(conv: nn.Conv2d) -> None:
    """Have a 3x3 convolution after a swish give back the carried colours, and little of the other channels."""
    conv.weight *= QUIET
    conv.weight[:, :CARRIED] = 0
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    for i in range(COLOURS):
        conv.weight[i, i, 1, 1], conv.weight[i, COLOURS + i, 1, 1] = 1, -1
