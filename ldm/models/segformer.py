"""SegFormer (arXiv 2105.15203), trained to find the regions of a photo."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ldm.models.segmenter import Segmenter
from ldm.targets import ConfigError


class SegFormer(Segmenter):
    """The network of the transformers library.

    Args (the YAML's keys):
        segformer: arguments of transformers' `SegformerConfig`.
        label_set, augmentation, ckpt_path, anneal_steps, monitor: as `Segmenter`.

    Raises:
        ConfigError: an unknown label set, or transformers is not installed.
    """

    def __init__(
        self,
        segformer: Mapping[str, Any],
        label_set: str = "CelebAMask-HQ",
        augmentation: Mapping[str, Any] | None = None,
        ckpt_path: str | None = None,
        anneal_steps: int = 0,
        monitor: str = "val/miou",
    ) -> None:
        self._settings = dict(segformer)
        super().__init__(label_set, augmentation, ckpt_path, anneal_steps, monitor)

    def _network(self) -> nn.Module:
        try:
            from transformers import SegformerConfig, SegformerForSemanticSegmentation
        except ImportError as error:
            raise ConfigError(
                'SegFormer needs the transformers library; pip install -e ".[evaluation]"'
            ) from error
        config = SegformerConfig(**self._settings, id2label=dict(enumerate(self.label_set.regions)))
        return SegformerForSemanticSegmentation(config)

    def _logits(self, image: Tensor) -> Tensor:
        return self.network(pixel_values=image).logits  # (B, R, H/4, W/4)
