"""Latent cache: items and losses of training on images, incremental writing, errors."""

import json
import shutil

import pytest
import torch

from ldm.data.datamodule import DataModuleFromConfig
from ldm.data.datasets.latent_cache import CachedLatents, write_latents
from ldm.data.datasets.latent_index import LatentCacheError, write_index
from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.targets import instantiate_from_config
from tests import small

SOURCE = {
    "target": "ldm.data.synthetic.dataset.SyntheticFaces",
    "params": {"size": 16, "length": 10, "seed": 3, "horizontal_flip": True},
}


class Counting:
    """Encoder that counts images."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network, self.count = instantiate_from_config(small.first_stage()), 0

    def __call__(self, image):
        self.count += len(image)
        return self.network.encode(image)


def build(path, encode, length=10, first_stage="one", source=SOURCE):
    faces = SyntheticFaces(16, length, seed=3)
    return write_latents(
        path, faces, encode, source=source, first_stage=first_stage, shard_size=4, batch_size=3
    )


def test_items_are_those_of_the_dataset_with_latents(tmp_path) -> None:
    encode = Counting()
    assert build(tmp_path, encode) == 3 and encode.count == 20
    cached, plain = CachedLatents(tmp_path, SOURCE), SyntheticFaces(16, 10, seed=3)
    assert len(cached) == 10 and cached.label_set == plain.label_set
    flipped = []
    for epoch in (0, 1):
        cached.set_epoch(epoch)
        for index in range(10):
            item, own = cached[index], plain[index]
            image = item["image"].float() / 127.5 - 1
            flipped.append(not torch.equal(image, own["image"]))
            expected = own["image"].flip(-1) if flipped[-1] else own["image"]
            labels = plain.label_set.flip(own["labels"]) if flipped[-1] else own["labels"]
            assert item["image"].dtype == torch.uint8 and item["name"] == own["name"]
            assert torch.equal(image, expected) and torch.equal(item["labels"], labels)
            with torch.no_grad():
                latent = encode.network.encode(expected[None])[0]
            torch.testing.assert_close(item["latent"], latent, atol=1e-5, rtol=1e-4)
    assert 3 < sum(flipped) < 17 and flipped[:10] != flipped[10:]


def test_only_changed_shards_are_computed(tmp_path) -> None:
    encode = Counting()
    build(tmp_path, encode)
    assert build(tmp_path, encode) == 0 and encode.count == 20
    next(tmp_path.glob("00001-*.safetensors")).unlink()  # as after an interruption
    assert build(tmp_path, encode) == 1
    assert build(tmp_path, encode, first_stage="two") == 3  # other weights
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    assert build(tmp_path, encode, length=9, first_stage="two") == 1  # only the last shard differs


def test_caches_of_other_datasets_are_refused(tmp_path) -> None:
    encode = Counting()
    with pytest.raises(LatentCacheError, match="no complete latent cache"):
        CachedLatents(tmp_path, SOURCE)
    unflipped = {**SOURCE, "params": {**SOURCE["params"], "horizontal_flip": False}}
    build(tmp_path, encode, source=unflipped)
    assert CachedLatents(tmp_path, unflipped)[-1]["name"] == "000009"
    with pytest.raises(LatentCacheError, match="no latents of flipped images"):
        CachedLatents(tmp_path, SOURCE)
    other = {**unflipped, "params": {**unflipped["params"], "seed": 4}}
    with pytest.raises(LatentCacheError, match="run scripts/cache_latents"):
        CachedLatents(tmp_path, other)
    shard = json.loads((tmp_path / "index.json").read_text())["shards"][1]
    (tmp_path / shard).unlink()
    with pytest.raises(LatentCacheError, match=shard):
        CachedLatents(tmp_path, unflipped)


def test_losses_equal_those_of_training_on_images(tmp_path) -> None:
    torch.manual_seed(0)
    model = instantiate_from_config(small.diffusion())
    source = {**SOURCE, "params": {"size": 16, "length": 8, "seed": 3}}
    faces = SyntheticFaces(16, 8, seed=3)
    write_latents(tmp_path / "train", faces, model.first_stage_model.encode, source=source, first_stage="one")
    losses = []
    for latents in (None, str(tmp_path)):
        data = DataModuleFromConfig(4, train=source, num_workers=0, latents=latents)
        assert data.label_set == faces.label_set and data.first_stage == (latents and "one")
        (batch, *_) = data.train_dataloader()
        torch.manual_seed(1)
        model.log_dict = lambda *args, **kwargs: None
        losses.append(model.training_step(batch, 0))
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("key", ["first_stage", "source", "shards", "names", "mirrored"])
@pytest.mark.parametrize("value", [None, 5])
def test_damaged_indexes_are_refused(key, value, tmp_path) -> None:
    build(tmp_path, Counting())
    index = json.loads((tmp_path / "index.json").read_text())
    index.pop(key) if value is None else index.update({key: value})
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(LatentCacheError, match=rf"index\.json is damaged.*{key}"):
        CachedLatents(tmp_path, SOURCE)


@pytest.mark.parametrize(
    "change", [{"palette": []}, {"mirror": ["x"] * 19}, {"regions": [{}] * 19}, {"name": 3}, None], ids=str
)
def test_damaged_label_sets_are_refused(change, tmp_path) -> None:
    build(tmp_path, lambda image: image[:, :, ::4, ::4])
    index = json.loads((tmp_path / "index.json").read_text())
    del index["checksum"]
    index["label_set"] = change and index["label_set"] | change
    write_index(tmp_path, index)  # with the right checksum: it is the label set that is refused
    with pytest.raises(LatentCacheError, match=r"index\.json.*label.set"):
        CachedLatents(tmp_path, SOURCE)


@pytest.mark.parametrize(
    "change",
    [{"shards": ["../a.safetensors", "b", "c"]}, {"shards": [1, 2, 3]}, {"names": [3, 4, 5]}],
    ids=str,
)
def test_shards_and_names_of_an_index_are_strings_without_paths(change, tmp_path) -> None:
    build(tmp_path, lambda image: image[:, :, ::4, ::4])
    index = json.loads((tmp_path / "index.json").read_text()) | change
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(LatentCacheError, match=rf"index\.json is damaged.*{next(iter(change))} has"):
        CachedLatents(tmp_path, SOURCE)


def test_a_changed_index_is_refused(tmp_path) -> None:
    build(tmp_path, lambda image: image[:, :, ::4, ::4])
    index = json.loads((tmp_path / "index.json").read_text())
    index["names"][0].reverse()
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(LatentCacheError, match=r"index\.json is damaged.*checksum"):
        CachedLatents(tmp_path, SOURCE)


def test_a_flipped_bit_in_a_shard_is_refused_and_computed_again(tmp_path) -> None:
    encode = Counting()
    build(tmp_path, encode)
    expected = [item["latent"] for item in CachedLatents(tmp_path, SOURCE)]
    shard = sorted(tmp_path.glob("*.safetensors"))[1]  # faces 4 to 7
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    damaged = tmp_path / "damaged"
    shutil.copytree(tmp_path, damaged)  # opened shards are kept by path
    (damaged / shard.name).write_bytes(content)
    cached = CachedLatents(damaged, SOURCE)
    cached[0]
    with pytest.raises(LatentCacheError, match=f"{shard.name} is damaged: its checksum does not match"):
        cached[4]
    encode.count = 0
    assert build(damaged, encode) == 1 and encode.count == 8  # four faces and their mirror images
    assert torch.equal(CachedLatents(damaged, SOURCE)[7]["latent"], expected[7])


def test_damaged_shards_are_refused(tmp_path) -> None:
    build(tmp_path, lambda image: image[:, :, ::4, ::4])
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    sound = shard.read_bytes()
    shard.write_bytes(sound[:200])
    with pytest.raises(LatentCacheError, match=f"{shard.name} is damaged"):
        CachedLatents(tmp_path, SOURCE)
    build(tmp_path / "b", lambda image: image[:, :, ::2, ::2])
    shard.write_bytes(sorted((tmp_path / "b").glob("*.safetensors"))[1].read_bytes())
    with pytest.raises(LatentCacheError, match="differ in size"):
        CachedLatents(tmp_path, SOURCE)
    shard.write_bytes(sorted((tmp_path / "b").glob("*.safetensors"))[2].read_bytes())
    with pytest.raises(LatentCacheError, match=rf"{shard.name} has pixels \[2, 3, 16, 16\].*\[4, 3"):
        CachedLatents(tmp_path, SOURCE)
