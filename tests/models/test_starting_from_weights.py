"""Training that starts from weights: of a whole model, without averages, of networks that have changed in part."""

import copy
from pathlib import Path

import pytest
import torch

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import build_model, read_checkpoint, write_checkpoint
from ldm.targets import instantiate_from_config
from ldm.training.config import load_config
from tests import small
from tests.models.test_autoencoder import fit


def model(**params):
    return small.sensitive(small.diffusion(**params))


def test_a_whole_models_weights_are_a_start_without_other_files(tmp_path) -> None:
    trained = model()
    first_stage = {**small.DIFFUSION["params"]["first_stage_config"]}
    first_stage["params"] = {**first_stage["params"], "ckpt_path": str(tmp_path / "not there.ckpt")}
    whole = write_checkpoint(tmp_path / "whole.safetensors", trained.state_dict())
    started = instantiate_from_config(small.diffusion(ckpt_path=str(whole), first_stage_config=first_stage))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(started.state_dict()[name], tensor), name


def test_weights_without_averages_start_them_anew(tmp_path) -> None:
    trained = model(use_ema=False)
    file = write_checkpoint(tmp_path / "raw.safetensors", trained.state_dict())
    started = instantiate_from_config(small.diffusion(ckpt_path=str(file)))
    with started.ema_scope():
        for parameter, kept in zip(started.model.parameters(), trained.model.parameters(), strict=True):
            assert torch.equal(parameter, kept)
    assert int(started.model_ema.num_updates) == 0


def test_weights_of_a_network_that_changed_in_part_are_a_start(tmp_path) -> None:
    trained = small.sensitive(small.diffusion())
    file = str(write_checkpoint(tmp_path / "before.safetensors", trained.state_dict()))
    wider = copy.deepcopy(small.diffusion(ckpt_path=file))
    wider["params"]["cond_stage_config"]["params"]["output_dim"] = 12
    wider["params"]["unet_config"]["params"]["context_dim"] = 12
    with pytest.raises(CheckpointError, match="another shape"):
        instantiate_from_config(wider)
    changed = ["cond_stage_model.*", "*.attn2.to_[kv].weight"]
    wider["params"]["ignore_keys"] = changed
    torch.manual_seed(1)
    started = instantiate_from_config(wider)
    for name, parameter in started.model.named_parameters():
        before = trained.model.get_parameter(name)
        assert torch.equal(parameter, before) != name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")), (
            name
        )
    assert int(started.model_ema.num_updates) == 0
    with started.ema_scope():
        assert torch.equal(started.unet.out[2].bias, trained.unet.out[2].bias)
    used = write_checkpoint(tmp_path / "after.safetensors", started.state_dict())
    build_model(wider, read_checkpoint(used))  # for use: without the file that it started from
    wider["params"]["ignore_keys"] = [*changed, "no_such.*"]
    with pytest.raises(ValueError, match=r"matches no_such\.\*"):
        instantiate_from_config(wider)


def test_weights_are_a_start_for_a_network_with_another_layer(tmp_path) -> None:
    config = small.diffusion()
    config["params"]["unet_config"]["params"] |= {"style_grid": 2, "area_masks": True}
    file = write_checkpoint(tmp_path / "w.safetensors", instantiate_from_config(config).state_dict())
    config["params"]["unet_config"]["params"]["style_input"] = True
    config["params"]["ckpt_path"] = str(file)
    with pytest.raises(CheckpointError):
        instantiate_from_config(config)
    config["params"]["ignore_keys"] = ["*.input_blocks.0.1.conv.*"]
    started = instantiate_from_config(config)
    assert not started.unet.input_blocks[0][1].conv.weight.any()
    assert int(started.model_ema.num_updates) == 0


def test_the_config_for_faces_continues_from_the_weights_in_the_repository() -> None:
    root = Path(__file__).resolve().parents[2]
    overrides = [
        f"model.params.ckpt_path={root / 'checkpoints/faces/diffusion'}",
        f"model.params.first_stage_config.params.ckpt_path={root / 'checkpoints/faces/diffusion/model.safetensors'}",
    ]
    config = load_config([root / "configs/latent-diffusion/faces-256.yaml"], overrides)
    assert instantiate_from_config(config["model"]).unet.out[2].weight.any()


def test_training_on_from_weights_keeps_their_scale(tmp_path) -> None:
    file = write_checkpoint(tmp_path / "w.safetensors", model(scale_by_std=True, scale_factor=3).state_dict())
    m = model(scale_by_std=True, ckpt_path=str(file))
    fit(m, 1, tmp_path)
    assert m.scale_factor.item() == 3


def test_the_decay_of_the_averages_is_that_of_the_config(tmp_path) -> None:
    trained = model(ema_style_encoder=True)  # decay 0.9999
    file = write_checkpoint(tmp_path / "w.safetensors", trained.state_dict())
    config = small.diffusion(ema_decay=0.9, ema_style_encoder=True, ckpt_path=str(file))
    started = instantiate_from_config(config)
    assert float(started.model_ema.decay) == float(started.cond_stage_ema.decay) == pytest.approx(0.9)
    started.load_state_dict(trained.state_dict())  # a resumed run keeps its own
    assert float(started.model_ema.decay) == pytest.approx(0.9999)
