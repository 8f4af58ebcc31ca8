"""Tar shards: round trip, order as a function of (seed, epoch), downloads, errors."""

import functools
import http.server
import shlex
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from ldm.data.datamodule import DataError, DataModuleFromConfig, EpochSampler
from ldm.data.datasets.celebamask import CelebAMaskHQ
from ldm.data.datasets.shards import INDEX, ShardedFaces
from ldm.data.datasets.tar_shard import ShardError, open_shard
from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.targets import ConfigError, check_config, instantiate_from_config
from ldm.training.config import load_config
from scripts import draw_faces, make_shards

IMAGES, PER_SHARD = 22, 4  # six shards, the last of two


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    draw_faces.main([str(folder), "--count", str(IMAGES), "--size", "16"])
    return folder


@pytest.fixture
def shards(faces: Path, tmp_path: Path) -> Path:
    open_shard.cache_clear()
    out = tmp_path / "100% shards"
    assert make_shards.main(["--data", str(faces), "--out", str(out), "--per-shard", str(PER_SHARD)]) == 0
    return out


def names(dataset: Any) -> list[str]:
    return [dataset[i]["name"] for i in range(len(dataset))]


def order(dataset: ShardedFaces, batch_size: int = 2, **options: Any) -> list[int]:
    settings: dict[str, Any] = {"shuffle": True, "whole_batches": True, **options}
    return list(EpochSampler(len(dataset), batch_size, permute=dataset.shuffled, **settings))


@pytest.mark.parametrize("options", [{}, {"horizontal_flip": True, "seed": 3}, {"keys": ["image"]}], ids=str)
def test_items_are_those_of_the_folder(faces: Path, shards: Path, options: dict[str, Any]) -> None:
    sharded, folder = ShardedFaces(str(shards), 8, **options), CelebAMaskHQ(8, str(faces), **options)
    assert len(sharded) == IMAGES and sorted(names(sharded)) == names(folder)
    assert names(sharded) != names(folder)  # random order
    sharded.flips = folder.flips = None  # flips depend on the index
    expected = {item["name"]: item for item in (folder[i] for i in range(IMAGES))}
    for i in range(IMAGES):
        found = sharded[i]
        assert found.keys() == expected[found["name"]].keys()
        for key in found.keys() - {"name"}:
            assert torch.equal(found[key], expected[found["name"]][key])


def test_flips_are_a_function_of_seed_epoch_and_index(shards: Path) -> None:
    plain, flips = ShardedFaces(str(shards), 16), ShardedFaces(str(shards), 16, horizontal_flip=True)
    seen = []
    for epoch in (0, 1, 0):
        flips.set_epoch(epoch)
        seen.append([not torch.equal(flips[i]["image"], plain[i]["image"]) for i in range(IMAGES)])
    assert seen[0] == seen[2] != seen[1] and 3 < sum(seen[0]) < IMAGES - 3
    flipped = seen[0].index(True)
    assert torch.equal(flips[flipped]["image"], plain[flipped]["image"].flip(-1))
    assert torch.equal(flips[flipped]["labels"], plain.label_set.flip(plain[flipped]["labels"]))


def test_webdataset_reads_the_shards(shards: Path) -> None:
    files = [str(file) for file in sorted(shards.glob("*.tar"))]
    samples = list(webdataset.WebDataset(files, shardshuffle=False).decode("rgb8"))
    ours = ShardedFaces(str(shards), 16)
    assert [sample["__key__"] for sample in samples] == names(ours)
    for i, sample in enumerate(samples):
        pixels = torch.from_numpy(sample["png"].copy()).permute(2, 0, 1)
        torch.testing.assert_close(pixels / 127.5 - 1, ours[i]["image"], atol=1e-6, rtol=0)


def test_shards_of_a_config_are_deterministic(tmp_path: Path) -> None:
    config = tmp_path / "faces.yaml"
    config.write_text(
        "data: {target: main.DataModuleFromConfig, params: {batch_size: 2, validation: {target: "
        "ldm.data.synthetic.dataset.SyntheticFaces, params: {size: 16, length: 5, seed: 1}}}}\n"
        "model: {target: ldm.models.autoencoder.VQModel}\n"
    )
    for out in ("a", "b"):
        where = str(tmp_path / out)
        assert (
            make_shards.main(["-b", str(config), "--split", "validation", "--out", where, "--per-shard", "3"])
            == 0
        )
    assert [(tmp_path / out / "00001.tar").read_bytes() for out in "ab"].count(
        (tmp_path / "a/00001.tar").read_bytes()
    ) == 2
    source = SyntheticFaces(16, 5, 1)
    expected = {item["name"]: item for item in (source[i] for i in range(5))}
    found = ShardedFaces(str(tmp_path / "a"), 16)
    for item in (found[i] for i in range(5)):
        assert torch.equal(item["labels"], expected[item["name"]]["labels"])
        torch.testing.assert_close(item["image"], expected[item["name"]]["image"], atol=1 / 127, rtol=0)


@pytest.mark.parametrize("streams", [1, 3, 8])
def test_epoch_has_every_index_once_in_streams_of_whole_shards(shards: Path, streams: int) -> None:
    dataset = ShardedFaces(str(shards), 16, streams=streams)
    indices = dataset.shuffled(np.random.default_rng(5))
    assert sorted(indices) == list(range(IMAGES))
    assert not np.array_equal(indices, dataset.shuffled(np.random.default_rng(6)))
    for stream in range(streams):
        shard = np.searchsorted(dataset.starts, indices[stream::streams], side="right")
        # A stream reads one shard after the other.
        assert len(set(shard)) == 1 + np.count_nonzero(np.diff(shard))


def test_processes_share_one_order_and_read_different_shards(shards: Path) -> None:
    dataset = ShardedFaces(str(shards), 16, streams=2)
    alone = order(dataset, 4)
    shares = [order(dataset, 2, rank=rank, world_size=2) for rank in (0, 1)]
    assert [index for step in zip(*shares, strict=True) for index in step] == alone
    read = [set(np.searchsorted(dataset.starts, share, side="right")) for share in shares]
    assert len(read[0] & read[1]) <= 1  # the shard at the boundary


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_epochs_resume_with_the_same_images(shards: Path, workers: int) -> None:
    def loader(position: tuple[int, int]) -> Any:
        source = {
            "target": "ldm.data.datasets.shards.ShardedFaces",
            "params": {"path": str(shards), "size": 16},
        }
        data = DataModuleFromConfig(2, train=source, num_workers=workers)
        data.seed = 7
        return data._loader("train", position)

    whole = [batch["name"] for batch in loader((1, 0))]
    assert len(whole) == 11 and whole != [batch["name"] for batch in loader((0, 0))]
    interrupted = iter(loader((1, 0)))
    seen = [next(interrupted)["name"] for _ in range(4)]
    assert seen + [batch["name"] for batch in loader((1, 4))] == whole


def test_errors_name_the_damaged_shard_and_member(shards: Path, tmp_path: Path) -> None:
    dataset = ShardedFaces(str(shards), 16)
    shard = open_shard(shards / "00002.tar", PER_SHARD)
    offset, size = shard._members[1]["image"]
    with open(shards / "00002.tar", "r+b") as file:
        file.seek(offset + 41)  # after the PNG header
        file.write(bytes(size - 41))
    with pytest.raises(
        ValueError, match=rf"00002.tar: image of {shard.names[1]} is no PNG or JPEG image, or its beginning"
    ):
        dataset[2 * PER_SHARD + 1]
    data = DataModuleFromConfig(IMAGES, train={"target": "x"}, num_workers=0)
    data.datasets["train"] = dataset
    with pytest.raises(DataError, match=r"00002\.tar: image of"):
        next(iter(data.train_dataloader()))


def test_missing_and_truncated_shards_are_found_on_creation(shards: Path) -> None:
    file, whole = shards / "00001.tar", (shards / "00001.tar").read_bytes()
    file.write_bytes(whole[:3000])
    with pytest.raises(ShardError, match=r"00001.tar has 3,000 bytes, expected [\d,]+ by the index; copy"):
        ShardedFaces(str(shards), 16)
    with pytest.raises(ShardError, match=r"00001.tar is damaged at the member after \w+\.(labels\.)?png"):
        open_shard(file, PER_SHARD)
    file.write_bytes(whole)
    with pytest.raises(ShardError, match=r"00001.tar has 4 images, expected 5 by the index"):
        open_shard(file, PER_SHARD + 1)
    file.unlink()
    with pytest.raises(ShardError, match=r"00001.tar is missing"):
        ShardedFaces(str(shards), 16)
    (shards / INDEX).write_text("{}")
    with pytest.raises(ShardError, match=r"index.json is no index of shards"):
        ShardedFaces(str(shards), 16)


def test_errors_of_make_shards(shards: Path, faces: Path, tmp_path: Path, capsys) -> None:
    dotted = tmp_path / "dotted"
    for kind in ("images", "labels"):
        (dotted / kind).mkdir(parents=True)
        shutil.copy(faces / kind / "000000.png", dotted / kind / "a.b.png")
    for data, out, message in (
        (faces, shards, "already has shards"),
        (dotted, tmp_path / "new", r"the name a.b has a dot"),
        (tmp_path / "nowhere", tmp_path / "new", "does not exist"),
        (faces, faces / "labels", "has files of the dataset"),
        (faces, faces / "images" / "000000.png" / "new", "expected a folder"),
    ):
        with pytest.raises(SystemExit) as exit:
            make_shards.main(["--data", str(data), "--out", str(out)])
        assert exit.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(ValueError, match="streams must be an integer of at least 1, got 0"):
        ShardedFaces(str(shards), 16, streams=0)
    with pytest.raises(ConfigError, match="set `cache`"):
        ShardedFaces("https://example.com/faces", 16)


@pytest.fixture
def url(shards: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(shards))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_remote_shards_are_downloaded_once(shards: Path, url: str, tmp_path: Path) -> None:
    remote, local = ShardedFaces(url, 16, cache=str(tmp_path / "cache")), ShardedFaces(str(shards), 16)
    assert not (tmp_path / "cache").exists()
    for index in (0, 1, IMAGES - 1):
        assert torch.equal(remote[index]["image"], local[index]["image"])
    assert len(list((tmp_path / "cache").iterdir())) == 2
    shutil.rmtree(shards)
    assert len({remote[i]["name"] for i in range(PER_SHARD)}) == PER_SHARD
    with pytest.raises(ShardError, match="cannot be downloaded"):
        remote[PER_SHARD]


@pytest.mark.parametrize(
    "config", ["celebamask-hq", "celebamask-hq-64", "celebamask-hq-128", "synthetic-32", "synthetic-64"]
)
def test_printed_override_fits_the_shipped_configs(config, tmp_path, capsys) -> None:
    assert draw_faces.main([str(tmp_path / "faces"), "--count", "3", "--size", "16"]) == 0
    capsys.readouterr()
    out = tmp_path / "my shards"
    assert make_shards.main(["--data", str(tmp_path / "faces"), "--out", str(out)]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:3] == ["python", "main.py", "-b"]
    shipped = f"configs/latent-diffusion/{config}.yaml"
    train = load_config([shipped], words[5:], complete=False)["data"]["params"]["train"]
    check_config(train, "data.params.train")
    assert train["params"]["path"] == str(out) and type(train["params"]["size"]) is int
    assert len(instantiate_from_config({**train, "params": {**train["params"], "size": 16}})) == 3
