"""cache_latents.py, followed by training with main.py."""

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.io import write_checkpoint
from ldm.targets import instantiate_from_config
from scripts import cache_latents, draw_faces, make_shards
from tests import small
from tests.training.runs import read_rows, train_here

FACES = "ldm.data.synthetic.dataset.SyntheticFaces"


def test_training_on_cached_latents_equals_training_on_images(tmp_path, capsys) -> None:
    config = {
        "model": small.diffusion(),
        "data": {
            "target": "main.DataModuleFromConfig",
            "params": {
                "batch_size": 4,
                "num_workers": 0,
                "train": {"target": FACES, "params": {"size": 16, "length": 8, "seed": 0}},
                "validation": {"target": FACES, "params": {"size": 16, "length": 4, "seed": 1}},
            },
        },
        "lightning": {"trainer": {"max_steps": 2, "accelerator": "cpu", "log_every_n_steps": 1}},
    }
    config["model"]["params"]["first_stage_config"]["params"]["ckpt_path"] = str(first_stage(tmp_path))
    yaml = tmp_path / "small.yaml"
    OmegaConf.save(OmegaConf.create(config), yaml)
    latents = tmp_path / "latents"
    assert cache_latents.main(["-b", str(yaml), "--out", str(latents), "--device", "cpu"]) == 0
    assert "computed 1 shards" in capsys.readouterr().out

    runs = []
    for name, extra in (("images", []), ("cached", [f"data.params.latents={latents}"])):
        assert train_here(tmp_path / name, *extra, base=yaml) == 0
        (folder,) = (tmp_path / name / "runs").iterdir()
        runs.append([row for row in read_rows(folder / "metrics.csv") if row.get("val/loss_ema")][-1])
    assert abs(float(runs[0]["val/loss_ema"]) - float(runs[1]["val/loss_ema"])) < 1e-4

    (run,) = (tmp_path / "cached" / "runs").iterdir()
    assert train_here(tmp_path / "cached", "lightning.trainer.max_steps=4", resume=run) == 0
    assert "trained 4 steps" in capsys.readouterr().out
    size = ["model.params.image_size=8", "model.params.channels=3"]
    assert train_here(tmp_path / "size", f"data.params.latents={latents}", *size, base=yaml) == 2
    assert "its latents are [3, 4, 4], but the model's are [3, 8, 8]" in capsys.readouterr().err

    other = f"model.params.first_stage_config.params.ckpt_path={first_stage(tmp_path, seed=1)}"
    assert train_here(tmp_path / "other", f"data.params.latents={latents}", other, base=yaml) == 2
    assert "expected latents of the model's first stage" in capsys.readouterr().err


def test_caches_do_not_replace_the_dataset(tmp_path, capsys) -> None:
    shards = tmp_path / "data" / "train"
    draw_faces.main([str(tmp_path / "faces"), "--count", "2", "--size", "16"])
    assert make_shards.main(["--data", str(tmp_path / "faces"), "--out", str(shards)]) == 0
    train = {"target": "ldm.data.datasets.shards.ShardedFaces", "params": {"path": str(shards), "size": 16}}
    data = {"target": "main.DataModuleFromConfig", "params": {"batch_size": 2, "train": train}}
    config = {"model": small.diffusion(), "data": data}
    config["model"]["params"]["first_stage_config"]["params"]["ckpt_path"] = str(first_stage(tmp_path))
    OmegaConf.save(OmegaConf.create(config), tmp_path / "small.yaml")
    before = {file: file.read_bytes() for file in shards.iterdir()}
    with pytest.raises(SystemExit) as left:
        cache_latents.main(
            ["-b", str(tmp_path / "small.yaml"), "--out", str(shards.parent), "--device", "cpu"]
        )
    assert left.value.code == 2 and "has files of the dataset" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in shards.iterdir()} == before


def first_stage(folder, seed=0):
    torch.manual_seed(seed)
    return write_checkpoint(
        folder / f"first{seed}.safetensors", instantiate_from_config(small.first_stage()).state_dict()
    )
