"""convert_checkpoint.py: every kind of input, every format of output, and what it says of the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import VQModel
from omegaconf import OmegaConf
from torch import Tensor

from ldm.checkpoints.convert import read_first_stage
from ldm.checkpoints.io import read_checkpoint, write_checkpoint
from ldm.targets import instantiate_from_config
from scripts import convert_checkpoint
from tests import small
from tests.checkpoints.test_diffusers_vq import assert_same, theirs

THEIRS = "diffusion_pytorch_model"


def convert(source: Path, out: Path, to: str, *more: str) -> Path:
    assert convert_checkpoint.main([str(source), str(out), "--to", to, *more]) == 0
    return out


def refusal(capsys: Any, *words: object) -> str:
    """Return what the command says when it refuses."""
    with pytest.raises(SystemExit):
        convert_checkpoint.main([str(word) for word in words])
    return capsys.readouterr().err


def load(folder: Path) -> Any:
    """Build what a folder of ours describes."""
    checkpoint = read_checkpoint(folder)
    assert checkpoint.config is not None
    model = instantiate_from_config(checkpoint.config["model"])
    model.load_state_dict(checkpoint.state_dict)
    return model.eval()


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(
        torch.equal(found[k], value) and found[k].dtype == value.dtype for k, value in expected.items()
    )


@pytest.fixture
def compvis(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """Write a .ckpt as CompVis' old Lightning did: with loss and optimizer, without a config."""
    model = small.randomized(instantiate_from_config(small.first_stage()))
    weights = dict(model.state_dict())
    loss = {
        "loss.discriminator.main.0.weight": torch.ones(2),
        "loss.perceptual_loss.lin0.model.1.weight": torch.ones(2),
    }
    path = tmp_path / "model.ckpt"
    torch.save(
        {"state_dict": {**weights, **loss}, "epoch": 3, "global_step": 7, "optimizer_states": [{}]}, path
    )
    return path, weights


def test_what_diffusers_saved_works_here_and_comes_back_the_same(tmp_path: Path, capsys: Any) -> None:
    their = theirs(scaling_factor=0.5)
    their.save_pretrained(tmp_path / "theirs")
    here = convert(tmp_path / "theirs", tmp_path / "here", "ours")
    assert (
        "f = 4, 60 entries of 3 numbers" in (said := capsys.readouterr().out)
        and "latents, 0.5, is not kept" in said
    )
    assert_same(their, load(here), torch.float32)
    back = convert(here, tmp_path / "back", "diffusers")
    files = [read_checkpoint(tmp_path / folder / f"{THEIRS}.safetensors") for folder in ("theirs", "back")]
    assert_equal(files[1].state_dict, files[0].state_dict)
    assert_same(their, load(convert(back, tmp_path / "again", "ours")), torch.float32)
    assert_same(VQModel.from_pretrained(back), load(here), torch.float32)


def test_a_pipeline_folder_with_a_pickled_file(tmp_path: Path) -> None:
    their = theirs()
    their.save_pretrained(tmp_path / "pipeline" / "vqvae", safe_serialization=False)
    assert (tmp_path / "pipeline" / "vqvae" / f"{THEIRS}.bin").is_file()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    assert_same(their, load(convert(tmp_path / "pipeline", tmp_path / "here", "ours")), torch.float32)
    file = tmp_path / "pipeline" / "vqvae" / f"{THEIRS}.bin"
    assert_equal(read_first_stage(file).weights, read_first_stage(tmp_path / "pipeline").weights)


def test_half_precision_stays_half(tmp_path: Path) -> None:
    theirs().half().save_pretrained(tmp_path / "theirs", variant="fp16")
    here = convert(tmp_path / "theirs", tmp_path / "here", "ours")
    assert {value.dtype for value in read_checkpoint(here).state_dict.values()} == {torch.float16}


def test_compvis_and_back(tmp_path: Path, compvis: tuple[Path, dict[str, Tensor]]) -> None:
    path, weights = compvis
    here = convert(path, tmp_path / "here", "ours")
    assert_equal(read_checkpoint(here).state_dict, weights)
    params = OmegaConf.to_container(OmegaConf.load(here / "config.yaml"))["model"]["params"]
    assert params["ddconfig"] == {**small.DDCONFIG, "resolution": 256}  # all from the shapes
    assert (params["embed_dim"], params["n_embed"]) == (3, 2048)
    back = convert(here, tmp_path / "back" / "vq.ckpt", "compvis")
    assert_equal(torch.load(back, weights_only=True)["state_dict"], weights)
    assert_equal(read_first_stage(convert(back, tmp_path / "there", "diffusers")).weights, weights)
    yaml = OmegaConf.to_container(OmegaConf.load(tmp_path / "back" / "vq.yaml"))["model"]
    assert yaml["target"] == "ldm.models.autoencoder.VQModelInterface" and yaml["params"] == params
    assert yaml["params"]["lossconfig"] == {"target": "torch.nn.Identity"}


def test_a_yaml_says_what_shapes_do_not(tmp_path: Path, capsys: Any) -> None:
    sizes = {**small.DDCONFIG, "norm_groups": 4, "resolution": 16, "attn_resolutions": [8]}
    model = instantiate_from_config(small.first_stage(ddconfig=sizes))
    file = tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    recipe = tmp_path / "recipe.yaml"
    OmegaConf.save(OmegaConf.create({"model": small.first_stage(ddconfig=sizes)}), recipe)
    there = convert(file, tmp_path / "there", "diffusers", "--config", str(recipe))
    config = json.loads((there / "config.json").read_text())
    assert (config["norm_num_groups"], config["sample_size"]) == (4, 16)
    assert config["down_block_types"] == [
        "DownEncoderBlock2D",
        "AttnDownEncoderBlock2D",
        "DownEncoderBlock2D",
    ]
    said = refusal(capsys, there, tmp_path / "no.ckpt", "--to", "compvis")
    assert "32 groups, this one has norm_groups: 4" in said


def test_the_first_stage_inside_a_diffusion(tmp_path: Path) -> None:
    config = small.diffusion(scale_factor=0.25)
    whole = small.sensitive(config)
    file = write_checkpoint(tmp_path / "whole.safetensors", whole.state_dict(), {"model": config})
    there = convert(file, tmp_path / "there", "diffusers")
    assert json.loads((there / "config.json").read_text())["scaling_factor"] == 0.25
    their = VQModel.from_pretrained(there)
    z = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = whole.decode_first_stage(z)
        torch.testing.assert_close(their.decode(z / 0.25).sample, expected, rtol=1e-4, atol=1e-5)
    here = convert(file, tmp_path / "here", "ours")
    assert_equal(read_checkpoint(here).state_dict, dict(whole.first_stage_model.state_dict()))
    start = small.diffusion()
    start["params"]["first_stage_config"]["params"]["ckpt_path"] = str(here)
    used = instantiate_from_config(start).first_stage_model
    assert torch.equal(used.quantize.embedding.weight, whole.first_stage_model.quantize.embedding.weight)


def test_what_cannot_be_converted_is_one_sentence(tmp_path: Path, compvis: Any, capsys: Any) -> None:
    path, weights = compvis
    out = tmp_path / "out"
    theirs().save_pretrained(tmp_path / "theirs")
    cases: dict[str, tuple[object, ...]] = {
        "there is no such file": (tmp_path / "none.ckpt", out, "--to", "ours"),
        "use a name without suffix": (path, tmp_path / "x.safetensors", "--to", "diffusers"),
        "a name ending in .ckpt": (path, out, "--to", "compvis"),
        "put their config.json beside them": (
            (tmp_path / "theirs" / f"{THEIRS}.safetensors").rename(tmp_path / "alone.safetensors"),
            out,
            "--to",
            "ours",
        ),
        "found none; get the file": (tmp_path / "theirs", out, "--to", "ours"),
    }
    for name, state in {
        "no first stage, neither": {"weight": torch.ones(1)},
        "an autoencoder without a codebook": {k: v for k, v in weights.items() if "quantize" not in k},
        "incomplete first stage without 'decoder.conv_in.weight'": {
            k: v for k, v in weights.items() if k != "decoder.conv_in.weight"
        },
        "NaN or infinity": {**weights, "quant_conv.bias": torch.full((3,), torch.nan)},
        "keys are missing in the file: decoder.up": {k: v for k, v in weights.items() if "up.2" not in k},
    }.items():
        file = tmp_path / f"{len(cases)}.pt"
        torch.save(state, file)
        cases[name] = (file, out, "--to", "diffusers")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    cases["(no folder vqvae/)"] = (tmp_path / "pipeline", out, "--to", "ours")
    for message, words in cases.items():
        assert message in refusal(capsys, *words)
    assert not out.exists()
