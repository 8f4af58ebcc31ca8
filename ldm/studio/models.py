"""The model of the studio, with its EMA or raw weights."""

import threading
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from ldm.pipeline import FacePipeline
from ldm.pipeline.pretrained import Weights, weights_in


class Models:
    """Holds one model in memory, with its EMA or raw weights.

    Attributes:
        path: the checkpoint.
        checkpoint: its file name, without directories.
        kinds: available weights.
    """

    def __init__(self, path: str, options: Namespace) -> None:
        """Load the model; raise CheckpointError, or ValueError for an unavailable device."""
        self.path, self._given = Path(path), path
        self._config, self._device = options.config, options.device
        self.checkpoint = Path(path).name
        self.kinds: tuple[Weights, ...] = weights_in(path, options.config)
        self._lock = threading.Lock()
        self._images: Callable[[], Iterable[Tensor]] = tuple
        self._kind: Weights = self.kinds[0]
        self.pipe = self._load(self._kind)

    def fit_previews(self, images: Callable[[], Iterable[Tensor]]) -> None:
        """Make previews cheap, now and for weights loaded later, by a fit to images (3, H, W) of the model's size."""
        self._images = images
        self.pipe.fit_preview(images())

    def get(self, kind: str) -> FacePipeline:
        """Return the model with these weights, loading them if necessary.

        Raises:
            ValueError: weights that the checkpoint does not have.
        """
        found = [known for known in self.kinds if known == kind]
        if not found:
            raise ValueError(f"this model has no {kind} weights; available: {' and '.join(self.kinds)}")
        with self._lock:
            if found[0] != self._kind:
                self.pipe, self._kind = self._load(found[0]), found[0]
            return self.pipe

    def _load(self, kind: Weights) -> FacePipeline:
        pipe = FacePipeline.from_pretrained(
            self._given, config=self._config, weights=kind, device=self._device
        )
        pipe.fit_preview(self._images())
        return pipe
