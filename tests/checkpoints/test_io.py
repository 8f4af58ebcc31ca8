"""Reading and writing checkpoints."""

import json
import os
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ldm.atomic_files import WriteError
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint, write_checkpoint
from ldm.checkpoints.state_dict import select_prefix

RECORDED = Path(__file__).parents[1] / "golden" / "state_dict_official.json"
CONFIG = {
    "model": {"target": "torch.nn.Linear", "params": {"in_features": 3, "out_features": 2}},
    "rate": 2e-06,
}


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"weight": torch.randn(2, 3), "bias": torch.randn(2), "steps": torch.tensor(3)}


def _same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        value.dtype == expected[key].dtype and torch.equal(value, expected[key])
        for key, value in found.items()
    )


# --- reading ---


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ""])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_torch_files_round_trip(
    nested: bool, zipped: bool, suffix: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    saved: dict[str, Any] = (
        {"state_dict": weights, "epoch": 4, "global_step": 17} if nested else dict(weights)
    )
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(str(path))
    assert _same(checkpoint.state_dict, weights)
    assert (checkpoint.step, checkpoint.epoch) == ((17, 4) if nested else (None, None))
    assert checkpoint.path == path and checkpoint.config is None


def test_real_state_dict_with_its_version_numbers(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    assert _same(read_checkpoint(tmp_path / "a.pt").state_dict, module.state_dict())


def _lightning_1_4(
    folder: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Return a checkpoint as Lightning 1.4 wrote it; its package notes every import in `folder`/imported."""
    package = folder / "lightning_of_old" / "callbacks"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(f"open({str(folder / 'imported')!r}, 'w').close()\n")
    (package / "__init__.py").touch()
    (package / "model_checkpoint.py").write_text("class ModelCheckpoint: pass\n")
    monkeypatch.syspath_prepend(folder)
    callback = __import__("lightning_of_old.callbacks.model_checkpoint", fromlist=["x"]).ModelCheckpoint
    moments = {
        index: {"step": 3456, "exp_avg": torch.zeros(2, 3), "exp_avg_sq": torch.ones(2, 3)}
        for index in (0, 1)
    }
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-6, "betas": (0.9, 0.999), "params": [0, 1]}]}
    return {
        "epoch": 12,
        "global_step": 3456,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": OrderedDict(weights),
        "callbacks": {
            callback: {
                "monitor": "val/loss_simple_ema",
                "best_model_score": torch.tensor(0.25),
                "best_model_path": "logs/checkpoints/epoch=12.ckpt",
                "current_score": np.float64(0.3),
                "dirpath": Path("logs/checkpoints"),
            }
        },
        "optimizer_states": [optimizer],
        "lr_schedulers": [
            {"base_lrs": [1.0], "last_epoch": 12, "lr_lambdas": [{}], "_last_lr": [np.float32(1e-6)]}
        ],
        "hyper_parameters": {"in_features": 3, "monitor_class": callback, "classes": [callback, 1]},
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_lightning_1_4_file_loads_without_its_package(
    zipped: bool, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(_lightning_1_4(tmp_path, weights, monkeypatch), path, _use_new_zipfile_serialization=zipped)
    assert (tmp_path / "imported").exists(), "the package does not note its import"
    (tmp_path / "imported").unlink()
    for name in [name for name in sys.modules if name.startswith("lightning_of_old")]:
        del sys.modules[name]

    checkpoint = read_checkpoint(path)

    assert not (tmp_path / "imported").exists() and "lightning_of_old" not in sys.modules
    assert _same(checkpoint.state_dict, weights)
    assert (checkpoint.step, checkpoint.epoch) == (3456, 12)


def test_entries_that_are_not_tensors_are_ignored(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": {**weights, "version": 3}}, tmp_path / "a.ckpt")
    assert _same(read_checkpoint(tmp_path / "a.ckpt").state_dict, weights)


def test_config_inside_a_checkpoint(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": weights, "config": CONFIG}, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt").config == CONFIG


def test_yaml_of_the_same_name_is_read(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.ckpt")
    OmegaConf.save(OmegaConf.create(CONFIG), tmp_path / "a.yaml")
    assert read_checkpoint(tmp_path / "a.ckpt").config == CONFIG
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match=r"a\.yaml is not YAML"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_checkpoint_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"no weights.*epoch"):
        read_checkpoint(tmp_path / "a.ckpt")
    torch.save([torch.zeros(2)], tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="got a list"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_missing_file_names_those_that_are_there(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "celeba.ckpt")
    with pytest.raises(CheckpointError, match=r"no such file.*: celeba\.ckpt"):
        read_checkpoint(tmp_path / "celeb.ckpt")


def test_folders(weights: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_checkpoint(tmp_path)
    torch.save(weights, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path).path == tmp_path / "a.ckpt"
    torch.save(weights, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match=r"several.*a\.ckpt, b\.ckpt; name one"):
        read_checkpoint(tmp_path)
    write_checkpoint(tmp_path, weights)
    assert read_checkpoint(tmp_path).path == tmp_path / "model.safetensors"


def test_all_recorded_keys_of_the_published_model_are_read(tmp_path: Path) -> None:
    names = json.loads(RECORDED.read_text())
    tensors = {name: torch.full((2,), float(index)) for index, name in enumerate(names)}
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt")
    assert _same(read_checkpoint(tmp_path / "a.ckpt").state_dict, tensors)


# --- writing ---


def test_folder_round_trip(weights: dict[str, Tensor], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    file = write_checkpoint(folder, weights, OmegaConf.create(CONFIG), {"step": 17, "epoch": 4, "note": "x"})
    assert sorted(os.listdir(folder)) == ["config.yaml", "model.safetensors"]
    checkpoint = read_checkpoint(folder)
    assert file == checkpoint.path == folder / "model.safetensors"
    assert _same(checkpoint.state_dict, weights)
    assert (checkpoint.config, checkpoint.step, checkpoint.epoch) == (CONFIG, 17, 4)


def test_file_round_trip_carries_the_config_inside(weights: dict[str, Tensor], tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "demo.safetensors", weights, CONFIG)
    assert os.listdir(tmp_path) == ["demo.safetensors"]
    checkpoint = read_checkpoint(tmp_path / "demo.safetensors")
    assert _same(checkpoint.state_dict, weights)
    assert (checkpoint.config, checkpoint.step) == (CONFIG, None)


def test_shared_and_turned_tensors_are_written(tmp_path: Path) -> None:
    base = torch.randn(4, 4)
    tensors = {
        "a": base,
        "tied": base,
        "rows": base[1:3],
        "turned": base.t(),
        "parameter": nn.Parameter(base),
    }
    write_checkpoint(tmp_path / "a.safetensors", tensors)
    assert _same(
        read_checkpoint(tmp_path / "a.safetensors").state_dict, {k: v.detach() for k, v in tensors.items()}
    )


def test_half_precision_rounds_kernels_and_keeps_vectors(weights: dict[str, Tensor], tmp_path: Path) -> None:
    write_checkpoint(tmp_path, weights, dtype=torch.float16)
    read = read_checkpoint(tmp_path).state_dict
    assert torch.equal(read["weight"], weights["weight"].half())
    assert _same(select_prefix(read, "b"), select_prefix(weights, "b"))
    assert read["steps"].dtype == torch.int64


def test_failed_write_leaves_the_old_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    write_checkpoint(tmp_path, weights, CONFIG)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(CheckpointError, match="'b' must be a dense tensor, got a int"):
        write_checkpoint(tmp_path, {"b": 3})  # type: ignore[dict-item]
    with pytest.raises(CheckpointError, match=r"ending in \.safetensors"):
        write_checkpoint(tmp_path / "a.ckpt", weights)
    with pytest.raises(WriteError, match="cannot be written"):
        write_checkpoint(tmp_path / "config.yaml" / "a.safetensors", weights)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    (tmp_path / "busy" / "model.safetensors").mkdir(parents=True)  # a folder, which no file can replace
    with pytest.raises(WriteError, match="cannot be written"):
        write_checkpoint(tmp_path / "busy", weights)
    assert os.listdir(tmp_path / "busy") == ["model.safetensors"]
