"""Datasets of a config, in an order that is a function of (seed, epoch), so that training resumes at any batch."""

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ldm.data.datasets.latent_cache import CachedLatents
from ldm.data.device_loader import DeviceLoader
from ldm.data.shared_memory import check_shared_memory
from ldm.targets import instantiate_from_config

SMALL_DATASET = 64  # items; below, starting worker processes in each epoch costs more time than it saves
PARENTS_TIME = 60  # seconds that workers keep running after SIGTERM


class EpochSampler(Sampler[int]):
    """Sampler of one rank's indices in an epoch, starting at batch `start_batch`.

    The order is a function of `seed` and the epoch. It depends neither on other random state, which
    checkpoints would have to store, nor on the number of ranks, to which the indices are assigned in turn.

    Args:
        length: number of items of the dataset.
        batch_size: items per batch and rank.
        shuffle: use a random order in each epoch; otherwise 0, 1, 2, ...
        whole_batches: drop items that do not fill a batch on every rank; otherwise repeat items from the
            start of the order, so that all ranks have equally many.
        seed: seed of the order.
        rank: rank of this process.
        world_size: number of processes.
        permute: returns a random order of the indices (length,); None for a uniformly random permutation.

    Raises:
        ValueError: `whole_batches`, and the items do not fill one batch on every rank.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        shuffle: bool,
        whole_batches: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        permute: Callable[[np.random.Generator], np.ndarray] | None = None,
    ) -> None:
        self.length, self.batch_size, self.shuffle, self.seed = length, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.permute = permute or (lambda rng: rng.permutation(length))
        together = batch_size * world_size
        if whole_batches and length < together:
            raise ValueError(
                f"the dataset has {length} images, too few for one batch of {together} "
                f"({batch_size} on each of {world_size} devices); lower data.params.batch_size"
            )
        self.total = length // together * together if whole_batches else -(-length // world_size) * world_size
        self.epoch, self.start_batch = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; a new epoch starts at its first batch. Lightning calls this at the start of each epoch."""
        if epoch != self.epoch:
            self.epoch, self.start_batch = epoch, 0

    def order(self) -> list[int]:
        """Return the indices of all ranks in the current epoch, in order."""
        if self.shuffle:
            indices = self.permute(np.random.default_rng([self.seed, self.epoch]))
        else:
            indices = np.arange(self.length)
        return np.resize(indices, self.total).tolist()  # repeats the start if `total` is larger

    def __iter__(self) -> Iterator[int]:
        mine = self.order()[self.rank :: self.world_size]
        return iter(mine[self.start_batch * self.batch_size :])

    def __len__(self) -> int:
        # Of the whole epoch, also after a resume: Lightning counts the batches of a resumed epoch from its start.
        return self.total // self.world_size


class DataError(RuntimeError):
    """An image cannot be read; the message of the dataset names the file and the fix."""


class Readable(Dataset[Any]):
    """Dataset wrapper that converts errors about files to DataError, to distinguish them from bugs."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except (ValueError, OSError) as error:
            raise DataError(str(error)) from error


class _EpochLoader(DataLoader[Any]):
    """DataLoader that sets the epoch of its dataset before workers start, for flips by (seed, epoch)."""

    def __iter__(self) -> Any:
        assert isinstance(self.dataset, Readable)
        set_epoch = getattr(self.dataset.dataset, "set_epoch", None)
        if callable(set_epoch) and isinstance(self.sampler, EpochSampler):
            set_epoch(self.sampler.epoch)
        return super().__iter__()


class DataModuleFromConfig(pl.LightningDataModule):
    """Datasets of a training run.

    Args:
        batch_size: items per step and device.
        train: config of the training set, `{target, params}`.
        validation: config of the validation set.
        test: config of the test set.
        num_workers: number of worker processes; None depends on the cores and the size of the dataset.
        latents: folder of `scripts/cache_latents.py`; splits that it contains are read from it, with
            first-stage latents.
        on_device: keep the splits with cached latents in the memory of the training device; without worker
            processes, a GPU trains small networks several times as fast.
        wrap: key of the published YAMLs; has no effect.

    Attributes:
        seed: seed of the order of the training set; set by `main.py`.

    Raises:
        ValueError: no dataset, or batch_size or num_workers is out of range.
    """

    def __init__(
        self,
        batch_size: int,
        train: Mapping[str, Any] | None = None,
        validation: Mapping[str, Any] | None = None,
        test: Mapping[str, Any] | None = None,
        num_workers: int | None = None,
        wrap: bool = False,
        latents: str | None = None,
        on_device: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
        if num_workers is not None and (not isinstance(num_workers, int) or num_workers < 0):
            raise ValueError(
                f"num_workers must be an integer of at least 0, or null to choose it automatically, got {num_workers!r}"
            )
        if on_device and latents is None:
            raise ValueError("data.params.on_device needs cached latents; give data.params.latents a folder")
        self.on_device = on_device
        if wrap:
            warnings.warn("data.params.wrap has no effect; remove it", stacklevel=2)
        configs = {"train": train, "validation": validation, "test": test}
        self.configs = {split: config for split, config in configs.items() if config}
        if not self.configs:
            raise ValueError("data.params has no dataset; expected at least one of train, validation, test")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, 0
        self.latents = None if latents is None else Path(latents)
        if self.latents is not None and not any((self.latents / split).is_dir() for split in self.configs):
            raise ValueError(
                f"data.params.latents: {latents} has no folder for {', '.join(self.configs)}; "
                "write it with scripts/cache_latents.py"
            )
        self.datasets: dict[str, Dataset[Any]] = {}

    @property
    def first_stage(self) -> str | None:
        """Fingerprint of the first stage of cached latents; None without cached latents."""
        self.setup()
        return next((d.first_stage for d in self.datasets.values() if isinstance(d, CachedLatents)), None)

    @property
    def latent_shape(self) -> tuple[int, int, int] | None:
        """Shape (C, h, w) of cached latents; None without cached latents."""
        self.setup()
        return next((d.latent_shape for d in self.datasets.values() if isinstance(d, CachedLatents)), None)

    @property
    def label_set(self) -> Any:
        """Label set of the datasets; None if they have none."""
        self.setup()
        return next((found for d in self.datasets.values() if (found := getattr(d, "label_set", None))), None)

    def setup(self, stage: str | None = None) -> None:
        """Build the datasets on the first call; their constructors raise errors for missing or damaged files."""
        for split, config in self.configs.items():
            if split not in self.datasets:
                if self.latents is not None and (self.latents / split).is_dir():
                    dataset = CachedLatents(self.latents / split, config)
                else:
                    dataset = instantiate_from_config(config)
                if len(dataset) == 0:
                    raise ValueError(f"the {split} dataset {config.get('target')} is empty")
                self.datasets[split] = dataset

    def train_batches(self, world_size: int) -> int:
        """Return the number of training batches per epoch and device.

        Raises:
            ValueError: the training set does not fill one batch on each of `world_size` devices.
        """
        self.setup()
        return len(self._sampler("train", 0, world_size)) // self.batch_size

    def train_dataloader(self) -> DataLoader[Any] | DeviceLoader:
        """Return the loader of the training set; after a resume, of the rest of the interrupted epoch."""
        return self._loader("train", self._position())

    def val_dataloader(self) -> Any:
        """Return the loader of the validation set, in a fixed order; [] without a validation set."""
        return self._loader("validation") if "validation" in self.configs else []

    def test_dataloader(self) -> Any:
        """Return the loader of the test set, in a fixed order; [] without a test set."""
        return self._loader("test") if "test" in self.configs else []

    def worker_count(self, length: int) -> int:
        """Return the number of worker processes for a dataset of `length` items."""
        if self.num_workers is not None:
            return self.num_workers
        return 0 if length < SMALL_DATASET else min(_usable_cores(), 8)

    def _loader(self, split: str, position: tuple[int, int] = (0, 0)) -> DataLoader[Any] | DeviceLoader:
        """Return the loader of a split, starting at (epoch, batch)."""
        self.setup()
        if split not in self.datasets:
            raise ValueError(f"data.params has no {split!r} dataset")
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = self._sampler(split, rank, world_size)
        sampler.epoch, sampler.start_batch = position
        cached = self.datasets[split]
        if self.on_device and isinstance(cached, CachedLatents):
            device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
            return DeviceLoader(cached, sampler, self.batch_size, device)
        workers, dataset = self.worker_count(sampler.length), Readable(self.datasets[split])
        try:
            check_shared_memory(dataset, self.batch_size, workers)
        except ValueError as error:
            raise DataError(str(error)) from error
        return _EpochLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_parent,
        )

    def _sampler(self, split: str, rank: int, world_size: int) -> EpochSampler:
        dataset = self.datasets[split]
        assert isinstance(dataset, Sized)
        train = split == "train"
        return EpochSampler(
            len(dataset),
            self.batch_size,
            shuffle=train,
            whole_batches=train,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            permute=getattr(
                dataset, "shuffled", None
            ),  # of datasets that are faster to read in certain orders
        )

    def _position(self) -> tuple[int, int]:
        """Return (epoch, finished batches of it) from the progress that Lightning has restored."""
        if self.trainer is None:
            return 0, 0
        epochs: Any = self.trainer.fit_loop.epoch_progress.current
        batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        if epochs.processed == epochs.ready:  # between epochs
            return epochs.processed, 0
        if batches.is_last_batch:
            return epochs.processed + 1, 0
        return epochs.processed, batches.current.processed


def _usable_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ignore signals that are sent to the whole process group, so that the main process can finish its batch.

    Workers end with the main process, or PARENTS_TIME after SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PARENTS_TIME))
