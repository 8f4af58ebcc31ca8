"""Network of the face parser: EfficientNet-Lite0 and a feature-pyramid decoder with additive skips.

Lin et al., arXiv 1612.03144, with a 3x3 convolution at each level and the image's mean feature added at the
coarsest.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.efficientnet import STAGES, EfficientNetLite0, load_imagenet

SKIPS = (0, 1, 2, 4, 6)  # the last stage at strides 2, 4, 8, 16, 32


class FaceParserNetwork(nn.Module):
    """Image (B, 3, H, W) in [-1, 1] -> logits (B, num_classes, H/2, W/2).

    Args:
        num_classes: channels of the logits.
        widths: channels of the decoder at strides 2, 4, 8, 16, 32.
        pretrained: initialize the encoder with ImageNet weights from their package.

    Raises:
        CheckpointError: `pretrained` without that package.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int] = (32, 64, 96, 128, 128), pretrained: bool = False
    ) -> None:
        super().__init__()
        if len(widths) != len(SKIPS):
            raise ValueError(f"widths must have {len(SKIPS)} entries, one per stride, got {list(widths)}")
        self.encoder = load_imagenet() if pretrained else EfficientNetLite0()
        channels = [STAGES[i].channels for i in SKIPS]
        self.skips = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(channels, widths, strict=True))
        self.context = nn.Conv2d(channels[-1], widths[-1], 1)
        self.narrow = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(len(widths) - 1))
        self.convs = nn.ModuleList(_conv(w) for w in widths)
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits at half the side of the image, which must be divisible by 32."""
        stages = self.encoder(image)
        levels = [skip(stages[i]) for skip, i in zip(self.skips, SKIPS, strict=True)]  # (B, w, H/s, W/s)
        x = levels[-1] + self.context(stages[-1].mean((2, 3), keepdim=True))  # (B, w, H/32, W/32)
        x = self.convs[-1](x)  # (B, w, H/32, W/32)
        for i in reversed(range(len(levels) - 1)):
            up = F.interpolate(self.narrow[i](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.convs[i](levels[i] + up)  # (B, w, H/s, W/s)
        return self.head(x)  # (B, num_classes, H/2, W/2)


def _conv(width: int) -> nn.Sequential:
    """Return ReLU, 3x3 convolution, ReLU."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
