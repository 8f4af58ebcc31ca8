"""Batches of cached latents that lie in the memory of the training device.

A GPU trains a small network faster than worker processes can read and copy its batches. A set of some
thousand images fits its memory: 360 KB an image at 256x256 with its flipped latent.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ldm.data.datasets.latent_cache import CachedLatents
from ldm.data.labels import check_labels
from ldm.data.transfer import to_device


class DeviceLoader:
    """Iterable over the batches of an epoch, with the items and the order of a DataLoader.

    Args:
        dataset: the cached latents, which are copied to the device at the first iteration.
        sampler: an `EpochSampler`.
        batch_size: B; the last batch may be smaller.
        device: the device of the batches.

    Batches: `image` uint8 (B, 3, H, W), `labels` uint8 (B, H, W), `latent` float32 (B, C, h, w), `name`, a
        list.
    """

    batch_sampler = None  # read by Lightning, together with `sampler`, of which it sets the epoch

    def __init__(self, dataset: CachedLatents, sampler: Any, batch_size: int, device: torch.device) -> None:
        self.dataset, self.sampler, self.batch_size, self.device = dataset, sampler, batch_size, device
        self._tensors: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.dataset.set_epoch(self.sampler.epoch)
        if self._tensors is None:
            self._tensors = self._load()
        indices = list(self.sampler)
        for start in range(0, len(indices), self.batch_size):
            yield self._batch(self._tensors, indices[start : start + self.batch_size])

    def _load(self) -> dict[str, Tensor]:
        """Copy the dataset to the device; check its labels, and look up those of the flipped images."""
        tensors = self.dataset.tensors()
        label_set = self.dataset.label_set
        if label_set is not None:
            check_labels(tensors["labels"], len(label_set))
            # A label map of all values, flipped twice in position: what each value becomes.
            values = torch.arange(256, dtype=torch.uint8)[None]
            tensors["mirror"] = label_set.flip(values).flip(-1)[0]
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def _batch(self, tensors: dict[str, Tensor], indices: list[int]) -> dict[str, Any]:
        """Return the items at `indices`, some of them flipped."""
        flips = self.dataset.flips
        flipped = torch.tensor([flips is not None and flips.is_flipped(i) for i in indices])
        rows, kind = (to_device(one, self.device) for one in (torch.tensor(indices), flipped))
        pixels, labels = tensors["pixels"][rows], tensors["labels"][rows]
        latent = tensors["latents"][rows, kind.long()]
        if flips is not None:
            pixels = torch.where(kind[:, None, None, None], pixels.flip(-1), pixels)
            mirrored = tensors["mirror"][labels.flip(-1).int()]
            labels = torch.where(kind[:, None, None], mirrored, labels)
        names = [self.dataset.names[i] for i in indices]
        return {"image": pixels, "labels": labels, "latent": latent, "name": names}
