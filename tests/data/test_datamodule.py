"""Order of the items, shares of several devices, datasets of a config."""

from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from ldm.data.datamodule import DataError, DataModuleFromConfig, EpochSampler
from ldm.data.labels import CELEBAMASK_HQ
from ldm.targets import ConfigError

TINY = "tests.training.tiny.TinyFaces"


class BrokenFaces(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise ValueError(f"images/{index}.jpg is truncated; copy it again")


def sampler(length: int = 22, batch_size: int = 4, **options: Any) -> EpochSampler:
    return EpochSampler(length, batch_size, **{"shuffle": True, "whole_batches": True, **options})


def faces(length: int) -> dict[str, Any]:
    return {"target": TINY, "params": {"length": length}}


def test_epoch_is_a_permutation_of_whole_batches() -> None:
    order = list(sampler())
    assert len(order) == len(set(order)) == len(sampler()) == 20
    assert set(order) <= set(range(22)) and order != sorted(order)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {}
    for seed in (0, 1):
        for epoch in (0, 1):
            one, other = sampler(seed=seed), sampler(seed=seed)
            other.set_epoch(5)
            for each in (one, other):
                each.set_epoch(epoch)
            assert list(one) == list(other)
            orders[seed, epoch] = tuple(one)
    assert len(set(orders.values())) == 4


def test_resuming_gives_the_rest_of_the_epoch() -> None:
    late, whole = sampler(), sampler()
    whole.set_epoch(3)
    late.epoch, late.start_batch = 3, 2
    late.set_epoch(3)  # Lightning repeats it at the start of a resumed epoch
    assert list(late) == list(whole)[8:] and len(late) == len(whole) == 20
    late.set_epoch(4)
    whole.set_epoch(4)
    assert list(late) == list(whole)


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_ranks_share_one_order(world_size: int) -> None:
    alone = sampler(26, 5 * world_size)
    shares = [list(sampler(26, 5, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert [index for together in zip(*shares, strict=True) for index in together] == list(alone)


def test_validation_covers_all_items_and_pads_the_ranks() -> None:
    shares = [list(sampler(5, 4, shuffle=False, whole_batches=False, rank=r, world_size=3)) for r in range(3)]
    assert shares == [[0, 3], [1, 4], [2, 0]]
    assert list(sampler(5, 4, shuffle=False, whole_batches=False)) == [0, 1, 2, 3, 4]


def test_too_few_images_for_a_batch() -> None:
    with pytest.raises(ValueError, match=r"7 images, too few for one batch of 8 .*batch_size"):
        sampler(7, 4, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_shapes_of_batches(workers: int) -> None:
    data = DataModuleFromConfig(4, train=faces(10), validation=faces(6), num_workers=workers)
    batches, others = (
        list(data.train_dataloader()),
        list(DataModuleFromConfig(4, train=faces(10)).train_dataloader()),
    )
    assert [batch["name"] for batch in batches] == [batch["name"] for batch in others]
    assert batches[0]["image"].shape == (4, 3, 8, 8) and batches[0]["image"].dtype == torch.float32
    assert batches[0]["labels"].shape == (4, 8, 8) and batches[0]["labels"].dtype == torch.uint8
    assert [len(batch["name"]) for batch in data.val_dataloader()] == [4, 2]
    assert data.test_dataloader() == []
    assert data.label_set is CELEBAMASK_HQ


@pytest.mark.parametrize("workers", [0, 1])
def test_datasets_receive_the_epoch(workers: int) -> None:
    data = DataModuleFromConfig(4, train=faces(8), num_workers=workers)
    loader = data.train_dataloader()
    seen = {}
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        seen[epoch] = {n: x for b in loader for n, x in zip(b["name"], b["image"], strict=True)}
    assert seen[0].keys() == seen[1].keys()
    assert not any(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_datasets_keep_their_message(workers: int) -> None:
    broken = {"target": f"{__name__}.BrokenFaces"}
    data = DataModuleFromConfig(4, train=broken, num_workers=workers)
    with pytest.raises(DataError, match=r"images/\d.jpg is truncated; copy it again"):
        next(iter(data.train_dataloader()))


def test_invalid_configs() -> None:
    with pytest.raises(ValueError, match="has no dataset"):
        DataModuleFromConfig(4)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        DataModuleFromConfig(0, train=faces(8))
    with pytest.raises(ValueError, match=r"batch_size must be .* got 'four'"):
        DataModuleFromConfig("four", train=faces(8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"num_workers must be .* got -1"):
        DataModuleFromConfig(4, train=faces(8), num_workers=-1)
    with pytest.raises(ValueError, match=r"validation dataset .* is empty"):
        DataModuleFromConfig(4, train=faces(8), validation=faces(0)).setup()
    with pytest.raises(ConfigError, match="'lenght'; did you mean 'length'"):
        DataModuleFromConfig(4, train={"target": TINY, "params": {"lenght": 8}}).setup()
    with pytest.raises(ValueError, match="too few for one batch of 12"):
        DataModuleFromConfig(4, train=faces(8)).train_batches(3)
    assert DataModuleFromConfig(4, train=faces(30)).train_batches(3) == 2


def test_wrap_of_the_published_yamls_warns() -> None:
    with pytest.warns(UserWarning, match="wrap has no effect"):
        DataModuleFromConfig(4, train=faces(8), wrap=True)


def test_number_of_workers() -> None:
    data = DataModuleFromConfig(4, train=faces(8))
    assert data.worker_count(10) == 0 and 1 <= data.worker_count(10_000) <= 8
    assert DataModuleFromConfig(4, train=faces(8), num_workers=3).worker_count(10) == 3
