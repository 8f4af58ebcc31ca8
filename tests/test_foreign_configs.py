"""Configs that come with weights, or with the run of somebody else: nothing in them runs code or fills the memory."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file

import main
from ldm.checkpoints.config_files import MAX_DEPTH, check_extent, parse_json, read_foreign_config, read_yaml
from ldm.checkpoints.convert import read_first_stage
from ldm.checkpoints.io import CheckpointError, read_checkpoint
from ldm.checkpoints.model_size import shapes_of
from ldm.data.datasets.shards import ShardedFaces, ShardError
from ldm.parsing import FaceParser
from ldm.pipeline import FacePipeline
from ldm.targets import ConfigError, foreign_targets, instantiate_from_config, require_networks
from scripts import export_model
from tests import small
from tests.training.runs import only_run, train_here, write_tiny


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return dict(instantiate_from_config(small.diffusion(use_ema=False)).state_dict())


def shards(canary: Path) -> dict[str, Any]:
    return {
        "target": "ldm.data.shards.ShardedFaces",
        "params": {"path": f"pipe:touch {canary}", "size": 16, "cache": str(canary.parent)},
    }


def process(canary: Path) -> dict[str, Any]:
    return {"target": "subprocess.Popen", "params": {"args": ["touch", str(canary)]}}


def logger(canary: Path) -> dict[str, Any]:
    return {
        "target": "ldm.training.metrics_csv.MetricsCSV",
        "params": {"path": str(canary), "last_step": None},
    }


def within(part: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what puts a target at a parameter of the small diffusion, whose own target is sound."""

    def put(target: dict[str, Any]) -> dict[str, Any]:
        if part == "deep":
            return small.diffusion(unet={"style_frames": {"0": [target]}})
        return small.diffusion(**{part: target})

    return put


PLACES = {
    "model": lambda target: target,
    **{part: within(part) for part in ("unet_config", "cond_stage_config", "first_stage_config", "deep")},
}


def write(kind: str, folder: Path, state: dict[str, torch.Tensor], config: Any) -> Path:
    """Write weights with a config in one of the ways in which people pass them around."""
    if kind == "ckpt":
        torch.save({"state_dict": state, "config": config}, folder / "a.ckpt")
        return folder / "a.ckpt"
    if kind == "metadata":
        save_file(state, folder / "a.safetensors", {"config": json.dumps(config)})
        return folder / "a.safetensors"
    place = folder / "model"
    place.mkdir()
    save_file(state, place / "model.safetensors")
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return place


@pytest.mark.parametrize("kind", ["ckpt", "metadata", "folder"])
@pytest.mark.parametrize("target", [shards, process, logger], ids=lambda make: make.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_only_networks_are_built_of_a_config_that_came_with_weights(
    kind: str, target: Callable[[Path], dict[str, Any]], place: str, state: Any, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    config = PLACES[place](target(canary))
    path = write(kind, tmp_path, state, {"model": config})
    for load in (FacePipeline.from_pretrained, FaceParser.from_pretrained):
        with pytest.raises(ConfigError, match=target(canary)["target"]):
            load(path, device="cpu")
    with pytest.raises(SystemExit) as leaving:
        export_model.main([str(path), str(tmp_path / "out")])
    assert leaving.value.code == 2
    if place != "first_stage_config":  # of which the file's weights and the shapes alone are taken
        read_first_stage(path)
    assert not canary.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.Linear",
        "ldm.modules.losses.VQLoss",
        "lightning.pytorch.Trainer",
        "ldm.targets.resolve",
        "",
        5,
        None,
    ],
)
def test_the_table_of_networks_is_closed(target: Any) -> None:
    with pytest.raises(ConfigError, match="one of this project's models"):
        require_networks({"target": target})
    with pytest.raises(ConfigError, match="one of this project's networks"):
        require_networks(small.diffusion(unet_config={"target": target}))


def test_a_loss_that_is_not_installed_does_not_hinder_the_use_of_a_first_stage(
    state: Any, tmp_path: Path
) -> None:
    config = small.diffusion()
    config["params"]["first_stage_config"]["params"]["lossconfig"] = {"target": "taming.modules.losses.Loss"}
    path = write("folder", tmp_path, state, {"model": config})
    assert FacePipeline.from_pretrained(path, device="cpu").model.num_regions == 19


# --- resource bombs ---


def aliases(count: int) -> str:
    lines = ["a0: &a0 [1, 2]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, count))]
    return "\n".join(lines) + "\n"


def references(count: int) -> str:
    return "\n".join(["a0: xx", *(f"a{i}: ${{a{i - 1}}}${{a{i - 1}}}" for i in range(1, count))]) + "\n"


@pytest.mark.parametrize("text", [aliases(34), references(34), "a: " + "[" * 100_000, "a: &a [*a, *a]"])
def test_a_config_that_expands_without_end_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    for read in (read_yaml, read_foreign_config):
        with pytest.raises(ConfigError, match=r"config\.yaml.*(nested|larger than|itself)"):
            read(tmp_path / "config.yaml")
    assert main.main(["-b", str(tmp_path / "config.yaml"), "--dry-run"]) == 2


def test_containers_that_share_themselves_in_a_pickle_are_refused(state: Any, tmp_path: Path) -> None:
    doubled: Any = [1]
    for _ in range(34):
        doubled = [doubled, doubled]
    path = write("ckpt", tmp_path, state, {"model": small.diffusion(), "data": doubled})
    with pytest.raises(CheckpointError, match="larger than"):
        read_checkpoint(path)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ConfigError, match=f"more than {MAX_DEPTH} deep"):
        check_extent({"a": endless}, "x")


def test_deep_json_is_an_error_and_no_crash(state: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
    save_file(state, tmp_path / "a.safetensors", {"config": "[" * 100_000})
    with pytest.raises(CheckpointError, match="nested too deeply"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_a_config_that_came_with_weights_reads_no_environment(state: Any, tmp_path: Path) -> None:
    path = write("folder", tmp_path, state, {"model": small.diffusion(), "note": "${oc.env:HOME}"})
    with pytest.raises(CheckpointError, match=r"config\.yaml.*oc\.env:HOME"):
        read_checkpoint(path)
    (path / "config.yaml").write_text("a: 3\nb: ${a}\nc: {d: '${b}'}\n")
    assert read_foreign_config(path / "config.yaml") == {"a": 3, "b": 3, "c": {"d": 3}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("params.unet_config.params.num_res_blocks", 10**12),
        ("params.unet_config.params.num_res_blocks", 1e12),
        ("params.timesteps", 10**9),
        ("params.first_stage_config.params.ddconfig.ch", 10**9),
        ("params.first_stage_config.params.ddconfig.ch_mult", [1] * 1000),
        ("params.first_stage_config.params.n_embed", 10**12),
        ("params.unet_config.params.model_channels", 65_536),
    ],
)
def test_a_network_that_no_memory_holds_is_refused_before_it_is_built(
    key: str, value: Any, state: Any, tmp_path: Path
) -> None:
    config = OmegaConf.create(small.diffusion())
    OmegaConf.update(config, key, value)
    found = OmegaConf.to_container(config)
    path = write("ckpt", tmp_path, state, {"model": found})
    with pytest.raises((ConfigError, CheckpointError), match=r"a\.ckpt"):
        FacePipeline.from_pretrained(path, device="cpu")
    if value != 65_536:  # at that width the weights' shapes differ, and the memory is a matter of the machine
        with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
            instantiate_from_config(found) if key.count(".") == 1 else main_error(found, tmp_path)


def main_error(model: Any, folder: Path) -> None:
    from ldm.targets import check_config

    check_config(model, "model")


def test_a_model_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ldm.checkpoints.model_size.free_bytes", lambda device: 1_000_000)
    with pytest.raises(ConfigError, match=r"a model of .* GB, but only 0\.0 GB"):
        shapes_of(small.diffusion())


# --- shards ---


@pytest.mark.parametrize(
    "path", ["pipe:touch CANARY", "PIPE:touch CANARY", "gs://x;touch CANARY", "ais:x", "s3://x"]
)
def test_no_scheme_of_shards_starts_a_process(path: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(ConfigError, match="only http://, https://, file:// are fetched"):
        ShardedFaces(path.replace("CANARY", str(canary)), 16, cache=str(tmp_path))
    assert not canary.exists()


@pytest.mark.parametrize("file", ["pipe:touch CANARY", "../a.tar", "a.tar';touch CANARY;'", "/etc/a.tar", 3])
def test_an_index_of_shards_names_nothing_but_files_beside_it(file: Any, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    name = file.replace("CANARY", str(canary)) if isinstance(file, str) else file
    index = {"label_set": "CelebAMask-HQ", "shards": [{"file": name, "pictures": 1, "bytes": 10}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    for path in (str(tmp_path), f"file://{tmp_path}"):
        with pytest.raises(ShardError, match="expected NAME"):
            ShardedFaces(path, 16, cache=str(tmp_path / "cache"))
    assert not canary.exists()


# --- runs of somebody else ---


def test_a_run_of_somebody_else_builds_foreign_classes_only_where_they_are_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path, "lightning.trainer.max_epochs=1") == 0
    run, canary = only_run(tmp_path), tmp_path / "canary"
    whole = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    assert isinstance(whole, dict)
    changes: list[dict[str, Any]] = [
        {"model": {**process(canary), "base_learning_rate": 1.0}},
        {"data": {**whole["data"], "params": {**whole["data"]["params"], "train": process(canary)}}},
        {"data": {**whole["data"], "params": {**whole["data"]["params"], "train": shards(canary)}}},
        {"lightning": {**whole["lightning"], "callbacks": {"a": process(canary)}}},
    ]
    for change in changes:
        OmegaConf.save(OmegaConf.create({**whole, **change}), run / "config.yaml")
        for words in (
            ["--resume", str(run), "-t"],
            ["--resume", str(run), "--validate"],
            ["-b", str(run / "config.yaml"), "--dry-run"],
        ):
            built = "--dry-run" not in words or "Popen" in str(change)  # a dry run builds no data
            assert main.main([*words, "--allow-targets", "tests"]) == (2 if built else 0), words
            assert "Traceback" not in capsys.readouterr().err
            assert not canary.exists()
    shutil.rmtree(run)


def test_one_sentence_lists_the_foreign_targets_and_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["-b", str(write_tiny(tmp_path)), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert (
        "tests.training.tiny.TinyModel at model, tests.training.tiny.TinyFaces at data.params.train" in error
    )
    assert "--allow-targets tests" in error and len(error.splitlines()) == 1
    assert foreign_targets({"target": "tests.a.B"}, ("tests",)) == {}
    assert foreign_targets({"target": "testsuite.a.B"}, ("tests",)) == {"": "testsuite.a.B"}
