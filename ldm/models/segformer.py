"""SegFormer (arXiv 2105.15203) for face parsing."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ldm.closest_name import closest_name
from ldm.models.segmenter import Segmenter
from ldm.signatures import MAX_ITEMS
from ldm.targets import ConfigError


class SegFormer(Segmenter):
    """SegFormer of the transformers library.

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
        check_segformer(self._settings, SegformerConfig)
        config = SegformerConfig(**self._settings, id2label=dict(enumerate(self.label_set.regions)))
        return SegformerForSemanticSegmentation(config)

    def _logits(self, image: Tensor) -> Tensor:
        return self.network(pixel_values=image).logits  # (B, R, H/4, W/4)


def check_segformer(settings: Mapping[str, Any], config: type) -> None:
    """Raise ConfigError for settings outside the architecture: transformers accepts others that load code.

    Args:
        settings: `segformer` of the YAML.
        config: transformers' `SegformerConfig`, whose own parameters are keyword-only; those of its base are
            not.
    """
    kinds = inspect.signature(config).parameters
    known = [name for name, kind in kinds.items() if kind.kind is inspect.Parameter.KEYWORD_ONLY]
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"segformer takes no {key!r}; did you mean {closest_name(key, known)}?")
        numbers = value if isinstance(value, list | tuple) else [value]
        high = 64 if key in ("depths", "num_encoder_blocks") else 65_536
        if key != "hidden_act" and not all(type(x) in (int, float) and 0 <= x <= high for x in numbers):
            raise ConfigError(f"segformer.{key} must hold numbers in [0, {high:,}], got {value!r:.60}")
        if len(numbers) > MAX_ITEMS:
            raise ConfigError(f"segformer.{key} must have at most {MAX_ITEMS} numbers, got {len(numbers)}")
