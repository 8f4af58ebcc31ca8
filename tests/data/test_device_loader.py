"""Batches from the device's memory are those that worker processes would load."""

import pytest
import torch

from ldm.data.datamodule import DataModuleFromConfig
from ldm.data.datasets.latent_cache import write_latents
from ldm.targets import instantiate_from_config

FACES = {
    "target": "ldm.data.synthetic.dataset.SyntheticFaces",
    "params": {"size": 16, "length": 11, "seed": 3},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    source = {**FACES, "params": {**FACES["params"], "horizontal_flip": True}}
    write_latents(
        folder / "train",
        instantiate_from_config(FACES),
        lambda image: image[:, :, ::4, ::4] * 2,
        source=source,
        first_stage="none",
        shard_size=4,
    )
    return folder, source


def modules(cache):
    folder, source = cache
    shared = {"batch_size": 4, "train": source, "num_workers": 0, "latents": str(folder)}
    return DataModuleFromConfig(**shared), DataModuleFromConfig(**shared, on_device=True)


def test_batches_are_those_of_the_dataloader(cache) -> None:
    expected, found = (module.train_dataloader() for module in modules(cache))
    assert len(found) == len(expected) == 2
    flipped = set()
    for epoch in range(3):
        for loader in (expected, found):
            loader.sampler.set_epoch(epoch)
        for one, other in zip(expected, found, strict=True):
            assert one["name"] == other["name"]
            for key in ("image", "labels", "latent"):
                assert one[key].dtype == other[key].dtype
                assert torch.equal(one[key], other[key])
            flipped |= {found.dataset.flips.is_flipped(i) for i in range(11)}
    assert flipped == {True, False}


def test_it_starts_in_the_middle_of_an_epoch(cache) -> None:
    _, module = modules(cache)
    whole = [batch["name"] for batch in module.train_dataloader()]
    loader = module.train_dataloader()
    loader.sampler.start_batch = 1
    assert [batch["name"] for batch in loader] == whole[1:]


def test_on_device_needs_cached_latents() -> None:
    with pytest.raises(ValueError, match=r"data\.params\.latents"):
        DataModuleFromConfig(batch_size=4, train=FACES, on_device=True)
