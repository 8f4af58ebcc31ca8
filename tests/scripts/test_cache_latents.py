"""cache_latents.py and main.py, as a person runs one after the other."""

import torch
from omegaconf import OmegaConf

from ldm.checkpoints.io import write_checkpoint
from ldm.targets import instantiate_from_config
from scripts import cache_latents
from tests import small
from tests.training.runs import read_rows, train_here

FACES = "ldm.data.synthetic.dataset.SyntheticFaces"


def test_a_run_on_cached_latents_is_the_run_on_pictures(tmp_path, capsys) -> None:
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
    for name, extra in (("pictures", []), ("cached", [f"data.params.latents={latents}"])):
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


def first_stage(folder, seed=0):
    torch.manual_seed(seed)
    return write_checkpoint(
        folder / f"first{seed}.safetensors", instantiate_from_config(small.first_stage()).state_dict()
    )
