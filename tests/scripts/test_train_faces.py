"""train_faces.py, as a person runs it twice: from random weights, then from what the first call left."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.io import write_checkpoint
from ldm.pipeline import FacePipeline
from ldm.targets import instantiate_from_config
from ldm.training.config import load_config
from scripts import train_faces
from tests import small

FACES = "ldm.data.synthetic.dataset.SyntheticFaces"


def test_train_faces_continues_from_the_parts_of_the_first_call(tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    weights = instantiate_from_config(small.first_stage()).state_dict()
    # In half precision, as in checkpoints/faces: the export of the model must keep the values behind the latents.
    first_stage = write_checkpoint(tmp_path / "first_stage.safetensors", weights, dtype=torch.float16)
    model = small.diffusion()
    model["base_learning_rate"] = 1e-4
    model["params"]["first_stage_config"]["params"]["ckpt_path"] = str(first_stage)
    datasets = {
        split: {"target": FACES, "params": {"size": 16, "length": 8, "seed": seed}}
        for seed, split in enumerate(("train", "validation"))
    }
    data = {"target": "main.DataModuleFromConfig", "params": {"batch_size": 4, "num_workers": 0, **datasets}}
    config = tmp_path / "small.yaml"
    OmegaConf.save({"model": model, "data": data, "lightning": {"trainer": {"accelerator": "cpu"}}}, config)
    monkeypatch.setattr(train_faces, "PART", 1_000_000)
    out = tmp_path / "faces"
    folders = ["--latents", str(tmp_path / "latents"), "--out", str(out)]
    call = ["--config", str(config), *folders, "--minutes", "0.05", "--warmup", "2"]

    assert train_faces.main(call) == 0
    parts = sorted(out.glob("model.safetensors.*"))
    assert len(parts) > 1
    assert all(part.stat().st_size <= 1_000_000 for part in parts)
    joined = tmp_path / "joined"
    joined.mkdir()
    FacePipeline.from_pretrained(train_faces.join_parts(out, joined))

    before = (joined / "model.safetensors").read_bytes()
    assert train_faces.main(call) == 0
    train_faces.join_parts(out, joined)
    assert (joined / "model.safetensors").read_bytes() != before


def test_join_parts_names_what_is_missing(tmp_path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0123456789")
    first, *_ = train_faces.split_file(tmp_path / "model.safetensors", 4)
    first.unlink()
    with pytest.raises(FileNotFoundError, match=r"found model\.safetensors\.001, model\.safetensors\.002"):
        train_faces.join_parts(tmp_path, tmp_path)


def test_half_size_halves_every_size_of_the_config() -> None:
    config = load_config([Path(train_faces.CONFIG)], [])
    halved = load_config([Path(train_faces.CONFIG)], train_faces.half_size(config))
    before, after = config["model"]["params"], halved["model"]["params"]
    assert (before["image_size"], after["image_size"]) == (32, 16)
    assert after["unet_config"]["params"]["image_size"] == 16
    assert (
        after["cond_stage_config"]["params"]["input_downsampling"] == 1
    )  # codes are read at 128 x 128 in both
    assert {halved["data"]["params"][part]["params"]["size"] for part in ("train", "validation")} == {128}
