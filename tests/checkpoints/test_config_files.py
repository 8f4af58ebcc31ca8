"""Configs and headers with values that no model can have."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import main
from ldm.checkpoints.config_files import check_extent, parse_json, read_yaml
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint
from ldm.pipeline import FacePipeline
from ldm.targets import ConfigError, instantiate_from_config
from scripts import convert_checkpoint
from tests import small

DIGITS = int("9" * 400)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return dict(instantiate_from_config(small.diffusion(use_ema=False)).state_dict())


@pytest.mark.parametrize("number", [DIGITS, -DIGITS, 2**64, -(2**63) - 1])
def test_integers_of_more_than_64_bits_are_refused(number: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than 64 bits"):
        parse_json(f'{{"seed": [{number}]}}')
    with pytest.raises(ConfigError, match="here: 'seed' must have at most 64 bits"):
        check_extent({"a": [{"seed": number}]}, "here")
    (tmp_path / "a.yaml").write_text(f"model: {{params: {{timesteps: {number}}}}}")
    with pytest.raises(ConfigError, match=r"a\.yaml.*timesteps"):
        read_yaml(tmp_path / "a.yaml")
    assert main.main(["-b", str(tmp_path / "a.yaml"), "--dry-run"]) == 2


def test_integers_of_64_bits_are_read(tmp_path: Path) -> None:
    numbers = [2**64 - 1, -(2**63), 0, -5]
    assert parse_json(json.dumps(numbers)) == numbers
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(numbers))
    assert read_yaml(tmp_path / "a.yaml") == numbers


@pytest.mark.parametrize("key", ["params.scale_factor", "params.image_size", "base_learning_rate"])
@pytest.mark.parametrize("kind", ["yaml", "metadata", "ckpt"])
def test_400_digits_in_a_config_that_came_with_weights(
    key: str, kind: str, state: Any, tmp_path: Path
) -> None:
    config = small.diffusion()
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = DIGITS
    whole = {"model": config}
    path = tmp_path / ("a.ckpt" if kind == "ckpt" else "a.safetensors")
    if kind == "ckpt":
        torch.save({"state_dict": state, "config": whole}, path)
    else:
        save_file(state, path, {"config": json.dumps(whole)} if kind == "metadata" else None)
    if kind == "yaml":
        path.with_suffix(".yaml").write_text(yaml.safe_dump(whole))
    with pytest.raises(CheckpointError, match=rf"{path.with_suffix('')}.*64 bits"):
        FacePipeline.from_pretrained(path, device="cpu")


@pytest.mark.parametrize("digits", ["9" * 400, "9" * 5000, "-1", "1.5", "²"])
def test_step_that_is_no_number_is_left_out(digits: str, state: Any, tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors", {"step": digits, "epoch": "3"})
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    assert (checkpoint.step, checkpoint.epoch) == (None, 3)
    torch.save({"state_dict": state, "global_step": DIGITS, "epoch": 3}, tmp_path / "a.ckpt")
    checkpoint = read_checkpoint(tmp_path / "a.ckpt")
    assert (checkpoint.step, checkpoint.epoch) == (None, 3)


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "1e999", "-1", "null", '"4"'])
@pytest.mark.parametrize("place", ["shape", "offset"])
def test_numbers_in_the_header_of_safetensors(place: str, number: str, tmp_path: Path) -> None:
    shape, end = (number, "8") if place == "shape" else ("2", number)
    header = f'{{"w":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,{end}]}}}}'.encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: damaged"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_numbers_in_the_pickle_of_a_torch_file(tmp_path: Path) -> None:
    """The size, stride and offset of a tensor, and the length of its storage."""
    torch.save({"w": torch.arange(77.0)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    number = pickle.dumps(DIGITS, protocol=2)[2:-1]
    for count in (1, 2):  # the storage's length; then also the tensor's size
        changed = entries["a/data.pkl"].replace(b"KM", number, count)
        assert changed != entries["a/data.pkl"]
        with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
            for name, data in {**entries, "a/data.pkl": changed}.items():
                archive.writestr(name, data)
        with pytest.raises(CheckpointError, match=r"b\.pt"):
            read_checkpoint(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], r"data must be a mapping, got \[1\]"),
        ({"params": 3}, "data.params must be a mapping, got 3"),
        ({"params": {"train": "x"}}, "data.params.train must be a mapping, got 'x'"),
        *(
            ({"params": {"train": {"params": {"size": size}}}}, r"params.size must be .*\[1, 16,384\]")
            for size in (0, -1, 10**9, "16", [16], [16, "x"], 1.5, True)
        ),
    ],
)
def test_data_section_that_came_with_weights(data: Any, message: str, state: Any, tmp_path: Path) -> None:
    torch.save(
        {"state_dict": state, "config": {"model": small.diffusion(), "data": data}}, tmp_path / "a.ckpt"
    )
    with pytest.raises(CheckpointError, match=rf"a\.ckpt.*{message}"):
        FacePipeline.from_pretrained(tmp_path / "a.ckpt", device="cpu")


@pytest.mark.parametrize("key", ["sample_size", "scaling_factor", "num_vq_embeddings", "layers_per_block"])
@pytest.mark.parametrize("number", [str(DIGITS), "1e999", "[1]", '"x"'])
def test_numbers_in_a_config_of_diffusers(key: str, number: str, tmp_path: Path, capsys: Any) -> None:
    from tests.checkpoints.test_diffusers_vq import theirs

    theirs().save_pretrained(tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs/config.json").read_text())
    text = json.dumps({**config, key: "NUMBER"}).replace('"NUMBER"', number)
    (tmp_path / "theirs/config.json").write_text(text)
    with pytest.raises(SystemExit):
        convert_checkpoint.main([str(tmp_path / "theirs"), str(tmp_path / "out"), "--to", "ours"])
    error = capsys.readouterr().err
    assert str(tmp_path / "theirs") in error and "Traceback" not in error
