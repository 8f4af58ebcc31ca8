"""The model that the page works with, and its other weights where its file has them."""

import threading
from argparse import Namespace
from pathlib import Path

from ldm.pipeline import FacePipeline
from ldm.pipeline.pretrained import Weights, weights_in


class Models:
    """One model in memory at a time: its averaged or its last weights.

    Attributes:
        checkpoint: its name, without the folders of this machine.
        kinds: the weights that there are.
    """

    def __init__(self, path: str, options: Namespace) -> None:
        """Load it; raises CheckpointError, or ValueError for a device that cannot be used."""
        self._path, self._config, self._device = path, options.config, options.device
        self.checkpoint = Path(path).name
        self.kinds: tuple[Weights, ...] = weights_in(path, options.config)
        self._lock = threading.Lock()
        self._kind: Weights = self.kinds[0]
        self.pipe = self._load(self._kind)

    def get(self, kind: str) -> FacePipeline:
        """Return the model with these weights, loading them where the other ones are.

        Raises:
            ValueError: there are none of that kind.
        """
        found = [known for known in self.kinds if known == kind]
        if not found:
            raise ValueError(f"this model has no {kind} weights; it has {' and '.join(self.kinds)}")
        with self._lock:
            if found[0] != self._kind:
                self.pipe, self._kind = self._load(found[0]), found[0]
            return self.pipe

    def _load(self, kind: Weights) -> FacePipeline:
        return FacePipeline.from_pretrained(
            self._path, config=self._config, weights=kind, device=self._device
        )
