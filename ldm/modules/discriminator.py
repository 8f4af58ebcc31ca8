"""Patch discriminator for adversarial training of the first stage."""

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Classifies overlapping patches as real or reconstructed (PatchGAN; Isola et al., arXiv 1611.07004)."""

    def __init__(self, in_channels: int = 3, channels: int = 64, num_layers: int = 3) -> None:
        """Build `num_layers` stride-2 convolutions, the first with `channels` outputs, then two of stride 1."""
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        width = channels
        for i in range(1, num_layers + 1):
            out = channels * min(2**i, 8)
            stride = 2 if i < num_layers else 1
            layers += [
                nn.Conv2d(width, out, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.LeakyReLU(0.2),
            ]
            width = out
        layers.append(nn.Conv2d(width, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W) to one logit per patch, (B, 1, h, w); positive means real."""
        return self.layers(image)
