"""Weight files of every kind are read, ours are written, and what is no weight file is said to be so."""

import gzip
import json
import os
import pickle
import sys
import zipfile
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
from ldm.checkpoints.io import Checkpoint, build_model, read_checkpoint, write_checkpoint
from ldm.checkpoints.state_dict import select_prefix
from ldm.targets import ConfigError, instantiate_from_config

RECORDED = Path(__file__).parents[1] / "golden" / "state_dict_official.json"
CONFIG = {
    "model": {"target": "torch.nn.Linear", "params": {"in_features": 3, "out_features": 2}},
    "rate": 2e-06,
}


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"weight": torch.randn(2, 3), "bias": torch.randn(2), "steps": torch.tensor(3)}


def _same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        value.dtype == wanted[key].dtype and torch.equal(value, wanted[key]) for key, value in found.items()
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
    assert checkpoint.path == path and checkpoint.config is None and checkpoint.skipped == []


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
    name = "lightning_of_old.callbacks.model_checkpoint.ModelCheckpoint"
    assert checkpoint.skipped == [
        f"callbacks: {name}",
        f"hyper_parameters: {name}",
        f"hyper_parameters.classes: {name}",
    ]


def test_entries_that_are_no_tensors_are_reported(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": {**weights, "version": 3}}, tmp_path / "a.ckpt")
    checkpoint = read_checkpoint(tmp_path / "a.ckpt")
    assert _same(checkpoint.state_dict, weights)
    assert checkpoint.skipped == ["state_dict: version (int)"]


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


NOT_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "file is empty"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "web page": (b"\n <!DOCTYPE html><html><title>Quota exceeded</title>", "web page"),
    "text": (b"Access denied\nfor you", "text file that begins with 'Access denied for you'"),
    "old pickle": (b"cos\nsystem\n(S'true'\ntR.", "text file"),
    "gzip": (gzip.compress(b"x"), "packed archive"),
    "tar": (b"storages".ljust(257, b"\0") + b"ustar  \0".ljust(300, b"\0"), "tar archive"),
    "noise": (bytes(range(200, 256)), "not a weight file .it begins with c8 c9"),
    "pickle": (pickle.dumps({"w": 1}), "not one of torch.save"),
    "pickle cut off": (pickle.dumps({"w": 1})[:-4], "damaged"),
    "safetensors cut off": ((100).to_bytes(8, "little") + b'{"w":', "damaged safetensors file of 13 bytes"),
}


@pytest.mark.parametrize("name", list(NOT_WEIGHTS))
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_what_is_no_weight_file_is_named(name: str, suffix: str, tmp_path: Path) -> None:
    data, message = NOT_WEIGHTS[name]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_file_cut_off_anywhere_is_an_error(weights: dict[str, Tensor], tmp_path: Path) -> None:
    for name, zipped in (("zip.ckpt", True), ("legacy.ckpt", False), ("ours.safetensors", None)):
        path = tmp_path / name
        if zipped is None:
            write_checkpoint(path, weights)
        else:
            torch.save(weights, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for length in range(1, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match=name):
                read_checkpoint(path)


def test_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "vq-f4.zip", "w") as archive:
        archive.writestr("model.ckpt", b"x")
    with pytest.raises(CheckpointError, match=r"holds model\.ckpt\. Unpack it"):
        read_checkpoint(tmp_path / "vq-f4.zip")


def test_checkpoint_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"no weights in it.*epoch"):
        read_checkpoint(tmp_path / "a.ckpt")
    torch.save([torch.zeros(2)], tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_missing_file_names_those_that_are_there(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "celeba.ckpt")
    with pytest.raises(CheckpointError, match=r"no such file.*are: celeba\.ckpt"):
        read_checkpoint(tmp_path / "celeb.ckpt")


def test_folders(weights: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_checkpoint(tmp_path)
    torch.save(weights, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path).path == tmp_path / "a.ckpt"
    torch.save(weights, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match=r"several.*a\.ckpt, b\.ckpt\. Name one"):
        read_checkpoint(tmp_path)
    write_checkpoint(tmp_path, weights)
    assert read_checkpoint(tmp_path).path == tmp_path / "model.safetensors"


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
    with pytest.raises(CheckpointError, match="'b' is a int"):
        write_checkpoint(tmp_path, {"b": 3})  # type: ignore[dict-item]
    with pytest.raises(CheckpointError, match=r"written as \.safetensors"):
        write_checkpoint(tmp_path / "a.ckpt", weights)
    with pytest.raises(WriteError, match="cannot be written"):
        write_checkpoint(tmp_path / "config.yaml" / "a.safetensors", weights)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    (tmp_path / "busy" / "model.safetensors").mkdir(parents=True)  # a folder, which no file can replace
    with pytest.raises(WriteError, match="cannot be written"):
        write_checkpoint(tmp_path / "busy", weights)
    assert os.listdir(tmp_path / "busy") == ["model.safetensors"]


# --- building ---


def test_errors_while_building_name_the_file(diffusion_file: Path, tmp_path: Path) -> None:
    state = read_checkpoint(diffusion_file).state_dict
    raw = {key: value for key, value in state.items() if not key.startswith("model_ema.")}
    checkpoint = Checkpoint(raw, tmp_path / "a.ckpt")
    wider = _small_diffusion()
    wider["params"]["unet_config"]["params"]["spade_hidden"] = 64
    with pytest.raises(
        CheckpointError, match=r"a\.ckpt: .*\n(.*\n)*.* is \[128, 5, 3, 3\], wanted \[64, 5, 3, 3\]"
    ):
        build_model(wider, checkpoint, weights="raw")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: the checkpoint has no EMA weights"):
        build_model(_small_diffusion(), checkpoint)
    with pytest.raises(ConfigError, match=r"a\.ckpt: .*'os\.system'"):
        build_model({"model": {"target": "os.system", "params": {}}}, checkpoint, weights="raw")
    with pytest.raises(ValueError, match="wanted 'ema' or 'raw'"):
        build_model(_small_diffusion(), checkpoint, weights="average")  # type: ignore[arg-type]


def _small_diffusion(ckpt_path: str | None = None) -> dict[str, Any]:
    """Return the config of a small model of the real classes, as a checkpoint's YAML names them."""
    first_stage: dict[str, Any] = {
        "embed_dim": 3,
        "n_embed": 16,
        "ddconfig": {
            "double_z": False,
            "z_channels": 3,
            "resolution": 16,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
            "ch_mult": [1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "lossconfig": {"target": "torch.nn.Identity"},
    }
    if ckpt_path is not None:
        first_stage["ckpt_path"] = ckpt_path
    style = {"num_downsample": 2, "num_upsample": 1, "num_feat": 1, "num_mask_channels": 5, "output_dim": 8}
    unet = {
        "image_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "model_channels": 32,
        "attention_resolutions": [1],
        "num_res_blocks": 1,
        "channel_mult": [1],
        "num_head_channels": 16,
        "use_spatial_transformer": True,
        "context_dim": 8,
        "num_classes": 5,
        "use_mask_attn": True,
    }
    encoder = "ldm.modules.diffusionmodules.styleenc.MultiScaleEffStyleEncoder"
    return {
        "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "image_size": 8,
            "first_stage_config": {
                "target": "ldm.models.autoencoder.VQModelInterface",
                "params": first_stage,
            },
            "cond_stage_config": {"target": encoder, "params": style},
            "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
        },
    }


@pytest.fixture(scope="module")
def diffusion_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the small model in which averages and weights differ."""
    torch.manual_seed(0)
    model = instantiate_from_config(_small_diffusion())
    averages = {
        k: v + 1 if v.ndim else v for k, v in model.state_dict().items() if k.startswith("model_ema.")
    }
    path = tmp_path_factory.mktemp("diffusion") / "last.ckpt"
    torch.save({"state_dict": {**model.state_dict(), **averages}, "global_step": 5}, path)
    return path


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_diffusion_model_gets_the_chosen_weights(weights: Any, diffusion_file: Path) -> None:
    checkpoint = read_checkpoint(diffusion_file)
    model = build_model(_small_diffusion("nowhere/vq-f4.ckpt"), checkpoint, weights=weights)
    found = model.state_dict()
    key = "model.diffusion_model.time_embed.0.weight"
    average = checkpoint.state_dict["model_ema.diffusion_modeltime_embed0weight"]
    assert torch.equal(found[key], average if weights == "ema" else checkpoint.state_dict[key])
    for prefix in ("first_stage_model.", "cond_stage_model."):
        assert _same(select_prefix(found, prefix), select_prefix(checkpoint.state_dict, prefix))
    assert not any(key.startswith("model_ema.") for key in found) and not model.training


def test_first_stage_comes_from_its_own_file_where_the_checkpoint_lacks_it(
    diffusion_file: Path, tmp_path: Path
) -> None:
    whole = read_checkpoint(diffusion_file).state_dict
    first_stage = select_prefix(whole, "first_stage_model.")
    torch.save({"state_dict": first_stage}, tmp_path / "vq.ckpt")
    rest = {key: value for key, value in whole.items() if not key.startswith("first_stage_model.")}
    checkpoint = Checkpoint(rest, tmp_path / "rest.ckpt")
    model = build_model(_small_diffusion(str(tmp_path / "vq.ckpt")), checkpoint)
    assert _same(select_prefix(model.state_dict(), "first_stage_model."), first_stage)
    with pytest.raises(CheckpointError, match=r"rest\.ckpt: .*no first stage.*vq-f4\.zip, at nowhere\.ckpt"):
        build_model(_small_diffusion("nowhere.ckpt"), checkpoint)


def test_exported_weights_without_averages_build_the_same_model(diffusion_file: Path, tmp_path: Path) -> None:
    model = build_model(_small_diffusion(), read_checkpoint(diffusion_file), weights="ema")
    write_checkpoint(tmp_path, model.state_dict(), {"model": _small_diffusion()})
    exported = read_checkpoint(tmp_path)
    assert exported.config is not None
    again = build_model(exported.config, exported, weights="raw")
    assert _same(again.state_dict(), model.state_dict())


def test_all_recorded_keys_of_the_published_model_are_read(tmp_path: Path) -> None:
    names = json.loads(RECORDED.read_text())
    tensors = {name: torch.full((2,), float(index)) for index, name in enumerate(names)}
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt")
    assert _same(read_checkpoint(tmp_path / "a.ckpt").state_dict, tensors)
