"""Building a model from a checkpoint and a config."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import Checkpoint, build_model, read_checkpoint, write_checkpoint
from ldm.checkpoints.state_dict import select_prefix
from ldm.targets import ConfigError, instantiate_from_config


def _same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_errors_while_building_name_the_file(diffusion_file: Path, tmp_path: Path) -> None:
    state = read_checkpoint(diffusion_file).state_dict
    raw = {key: value for key, value in state.items() if not key.startswith("model_ema.")}
    checkpoint = Checkpoint(raw, tmp_path / "a.ckpt")
    wider = _small_diffusion()
    wider["params"]["unet_config"]["params"]["spade_hidden"] = 64
    with pytest.raises(
        CheckpointError, match=r"a\.ckpt: .*\n(.*\n)*.* is \[128, 5, 3, 3\], expected \[64, 5, 3, 3\]"
    ):
        build_model(wider, checkpoint, weights="raw")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: no EMA weights"):
        build_model(_small_diffusion(), checkpoint)
    with pytest.raises(ConfigError, match=r"a\.ckpt: .*'os\.system'"):
        build_model({"model": {"target": "os.system", "params": {}}}, checkpoint, weights="raw")
    with pytest.raises(ValueError, match="'ema' or 'raw', got 'average'"):
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
    """A checkpoint of the small model whose EMA copies differ from its weights."""
    torch.manual_seed(0)
    model = instantiate_from_config(_small_diffusion())
    averages = {
        k: v + 1 if v.ndim else v for k, v in model.state_dict().items() if k.startswith("model_ema.")
    }
    path = tmp_path_factory.mktemp("diffusion") / "last.ckpt"
    torch.save({"state_dict": {**model.state_dict(), **averages}, "global_step": 5}, path)
    return path


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_ema_or_raw_weights(weights: Any, diffusion_file: Path) -> None:
    checkpoint = read_checkpoint(diffusion_file)
    model = build_model(_small_diffusion("nowhere/vq-f4.ckpt"), checkpoint, weights=weights)
    found = model.state_dict()
    key = "model.diffusion_model.time_embed.0.weight"
    average = checkpoint.state_dict["model_ema.diffusion_modeltime_embed0weight"]
    assert torch.equal(found[key], average if weights == "ema" else checkpoint.state_dict[key])
    for prefix in ("first_stage_model.", "cond_stage_model."):
        assert _same(select_prefix(found, prefix), select_prefix(checkpoint.state_dict, prefix))
    assert not any(key.startswith("model_ema.") for key in found) and not model.training


def test_first_stage_from_its_own_file(diffusion_file: Path, tmp_path: Path) -> None:
    whole = read_checkpoint(diffusion_file).state_dict
    first_stage = select_prefix(whole, "first_stage_model.")
    torch.save({"state_dict": first_stage}, tmp_path / "vq.ckpt")
    rest = {key: value for key, value in whole.items() if not key.startswith("first_stage_model.")}
    checkpoint = Checkpoint(rest, tmp_path / "rest.ckpt")
    model = build_model(_small_diffusion(str(tmp_path / "vq.ckpt")), checkpoint)
    assert _same(select_prefix(model.state_dict(), "first_stage_model."), first_stage)
    with pytest.raises(CheckpointError, match=r"rest\.ckpt: .*no first stage.*vq-f4\.zip, at nowhere\.ckpt"):
        build_model(_small_diffusion("nowhere.ckpt"), checkpoint)


def test_exported_ema_weights_build_the_same_model(diffusion_file: Path, tmp_path: Path) -> None:
    model = build_model(_small_diffusion(), read_checkpoint(diffusion_file), weights="ema")
    write_checkpoint(tmp_path, model.state_dict(), {"model": _small_diffusion()})
    exported = read_checkpoint(tmp_path)
    assert exported.config is not None
    again = build_model(exported.config, exported, weights="raw")
    assert _same(again.state_dict(), model.state_dict())
