"""Datasets from the YAML, served in an order that is a function of (seed, epoch), so that a run can resume anywhere."""

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, Sampler

from ldm.data.datasets.latent_cache import CachedLatents
from ldm.data.shared_memory import check_shared_memory
from ldm.targets import instantiate_from_config

# Below this many pictures starting worker processes each epoch costs more than it saves.
SMALL_DATASET = 64
PARENTS_TIME = 60  # seconds that reading processes live on after a SIGTERM


class EpochSampler(Sampler[int]):
    """Yield this rank's dataset indices of one epoch, from batch `start_batch` on.

    The order depends on `seed` and the epoch alone: neither on random state that a checkpoint would have to hold nor
    on the number of ranks, which take turns in one common order.

    Args:
        length: pictures in the dataset.
        batch_size: pictures of one batch on one rank.
        shuffle: draw a new order each epoch; otherwise 0, 1, 2, ...
        whole_batches: leave out what does not fill a batch on every rank; otherwise the ranks are filled up with
            pictures from the start of the order.
        seed: of the order.
        rank: this process.
        world_size: number of processes.
        permute: draws a new order; None takes any permutation, each as likely.

    Raises:
        ValueError: `whole_batches`, and the pictures do not fill one batch on every rank.
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
                f"the dataset has {length} pictures, too few for one batch of {together} "
                f"({batch_size} on each of {world_size} devices); lower data.params.batch_size"
            )
        self.total = length // together * together if whole_batches else -(-length // world_size) * world_size
        self.epoch, self.start_batch = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; a new one starts at its first batch. Lightning calls this at the start of each epoch."""
        if epoch != self.epoch:
            self.epoch, self.start_batch = epoch, 0

    def order(self) -> list[int]:
        """Return all ranks' indices of the current epoch, in order."""
        if self.shuffle:
            indices = self.permute(np.random.default_rng([self.seed, self.epoch]))
        else:
            indices = np.arange(self.length)
        return np.resize(
            indices, self.total
        ).tolist()  # resize repeats from the start where ranks need filling up

    def __iter__(self) -> Iterator[int]:
        mine = self.order()[self.rank :: self.world_size]
        return iter(mine[self.start_batch * self.batch_size :])

    def __len__(self) -> int:
        # Of the whole epoch even where it starts late: Lightning counts a resumed epoch's batches from its beginning.
        return self.total // self.world_size


class DataError(RuntimeError):
    """A picture cannot be read; the message is the dataset's, which names the file and the mend."""


class Readable(Dataset[Any]):
    """A dataset whose errors about files can be told from programming errors."""

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
    """A DataLoader whose dataset hears of the epoch before its workers start, for augmentation by (seed, epoch)."""

    def __iter__(self) -> Any:
        assert isinstance(self.dataset, Readable)
        set_epoch = getattr(self.dataset.dataset, "set_epoch", None)
        if callable(set_epoch) and isinstance(self.sampler, EpochSampler):
            set_epoch(self.sampler.epoch)
        return super().__iter__()


class DataModuleFromConfig(pl.LightningDataModule):
    """The datasets of a run.

    Args:
        batch_size: pictures per step and device.
        train: `{target, params}` of the training set.
        validation: the same of the validation set.
        test: the same of the test set.
        num_workers: processes that read pictures; None chooses by the cores and the size of the dataset.
        latents: a folder of `scripts/cache_latents.py`: each split that it has a folder for comes from there, with
            first-stage latents, instead of from its files.
        wrap: of the published YAMLs; without effect.

    Attributes:
        seed: of the order of training pictures; `main.py` sets it.

    Raises:
        ValueError: no dataset at all, or batch_size or num_workers out of range.
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
    ) -> None:
        super().__init__()
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}; wanted a whole number, at least 1")
        if num_workers is not None and (not isinstance(num_workers, int) or num_workers < 0):
            raise ValueError(
                f"num_workers is {num_workers!r}; wanted 0 or more, or null to choose by the machine"
            )
        if wrap:
            warnings.warn("data.params.wrap has no effect: datasets need no wrapper here", stacklevel=2)
        configs = {"train": train, "validation": validation, "test": test}
        self.configs = {split: config for split, config in configs.items() if config}
        if not self.configs:
            raise ValueError("data.params names no dataset; wanted at least one of train, validation, test")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, 0
        self.latents = None if latents is None else Path(latents)
        if self.latents is not None and not any((self.latents / split).is_dir() for split in self.configs):
            raise ValueError(
                f"data.params.latents: {latents} has a folder for none of {', '.join(self.configs)}; "
                "scripts/cache_latents.py makes them"
            )
        self.datasets: dict[str, Dataset[Any]] = {}

    @property
    def first_stage(self) -> str | None:
        """The fingerprint of the first stage that cached latents are of, or None without any."""
        self.setup()
        return next((d.first_stage for d in self.datasets.values() if isinstance(d, CachedLatents)), None)

    @property
    def latent_shape(self) -> tuple[int, int, int] | None:
        """(C, h, w) of cached latents, or None without any."""
        self.setup()
        return next((d.latent_shape for d in self.datasets.values() if isinstance(d, CachedLatents)), None)

    @property
    def label_set(self) -> Any:
        """The LabelSet of the datasets, or None where they have none."""
        self.setup()
        return next((found for d in self.datasets.values() if (found := getattr(d, "label_set", None))), None)

    def setup(self, stage: str | None = None) -> None:
        """Build the datasets, once; their constructors raise on files that are missing or broken."""
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
        """Return the training batches of an epoch on each device.

        Raises:
            ValueError: the training set does not fill one on each of `world_size` devices.
        """
        self.setup()
        return len(self._sampler("train", 0, world_size)) // self.batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches; after a resume, those that the interrupted epoch has left."""
        return self._loader("train", self._position())

    def val_dataloader(self) -> Any:
        """Return the validation batches, in a fixed order; none without a validation set."""
        return self._loader("validation") if "validation" in self.configs else []

    def test_dataloader(self) -> Any:
        """Return the test batches, in a fixed order; none without a test set."""
        return self._loader("test") if "test" in self.configs else []

    def worker_count(self, length: int) -> int:
        """Return the number of reading processes for a dataset of `length` pictures."""
        if self.num_workers is not None:
            return self.num_workers
        return 0 if length < SMALL_DATASET else min(_usable_cores(), 8)

    def _loader(self, split: str, position: tuple[int, int] = (0, 0)) -> DataLoader[Any]:
        """Return the batches of a split from (epoch, batch) on."""
        self.setup()
        if split not in self.datasets:
            raise ValueError(f"data.params has no {split!r} dataset")
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = self._sampler(split, rank, world_size)
        sampler.epoch, sampler.start_batch = position
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
            ),  # of those that are not read equally fast in any order
        )

    def _position(self) -> tuple[int, int]:
        """Return (epoch, batches of it that are done) from the progress that Lightning has restored by now."""
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
    """Return the cores that this process may use, which a scheduler may have made fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _leave_signals_to_the_parent(worker: int) -> None:
    """Let a stop that reaches the whole process group end the parent in good order and not its readers first.

    Without them the batch that the parent wants to finish would fail. They leave once it has, and with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PARENTS_TIME))
