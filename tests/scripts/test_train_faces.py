"""train_faces.py, as a person runs it: from random weights, again, and after an interruption."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.io import write_checkpoint
from ldm.pipeline import FacePipeline
from ldm.targets import instantiate_from_config
from ldm.training import time_budget
from ldm.training.config import load_config
from ldm.training.metrics_csv import read_rows
from ldm.training.shipped_weights import shipped_weights
from ldm.training.unfinished_run import run_kept_in
from scripts import train_faces
from tests import small

FACES = "ldm.data.synthetic.dataset.SyntheticFaces"
STOP = 5  # steps


class Terminate(pl.Callback):
    """SIGTERM after a number of steps."""

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments) -> None:
        if trainer.global_step == STOP:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def call(tmp_path, monkeypatch) -> list[str]:
    """The command line of a training of the small diffusion."""
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
    lightning = {
        "trainer": {"accelerator": "cpu", "log_every_n_steps": 1, "check_val_every_n_epoch": 1000},
        "callbacks": {"terminate": {"target": "tests.scripts.test_train_faces.Terminate"}},
    }
    config = tmp_path / "small.yaml"
    OmegaConf.save({"model": model, "data": data, "lightning": lightning}, config)
    monkeypatch.setattr(train_faces, "PART", 1_000_000)
    folders = ["--latents", str(tmp_path / "latents"), "--out", str(tmp_path / "faces")]
    return ["--config", str(config), *folders, "--warmup", "2"]


@pytest.fixture
def clock(monkeypatch) -> None:
    """A clock of TimeBudget that advances by 3 s each time it is read: at the start, and twice a step."""
    now = [0.0]

    def tick() -> float:
        now[0] += 3
        return now[0]

    monkeypatch.setattr(time_budget, "time", type("Clock", (), {"monotonic": staticmethod(tick)}))


UNINTERRUPTED = ["--minutes", "1.2", "lightning.callbacks.terminate=null"]
INTERRUPTED = ["--minutes", "1.2"]


def test_train_faces_continues_from_the_parts_of_the_first_call(call, clock, tmp_path, capsys) -> None:
    out, call = tmp_path / "faces", [*call, *UNINTERRUPTED]
    assert train_faces.main(call) == 0
    assert capsys.readouterr().out.startswith("new run from random weights\n")
    parts = sorted(out.glob("model.safetensors.*"))
    assert len(parts) > 1
    assert all(part.stat().st_size <= 1_000_000 for part in parts)
    assert {file.name for file in out.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "preview.png",
        *(part.name for part in parts),
    }
    joined = tmp_path / "joined"
    joined.mkdir()
    FacePipeline.from_pretrained(train_faces.join_parts(out, joined))

    before = (joined / "model.safetensors").read_bytes()
    assert train_faces.main(call) == 0
    assert capsys.readouterr().out.startswith(f"new run from {out}\n")
    train_faces.join_parts(out, joined)
    assert (joined / "model.safetensors").read_bytes() != before


def test_after_sigterm_the_weights_are_exported_and_the_same_command_continues(
    call, clock, tmp_path, capsys
) -> None:
    out, call = tmp_path / "faces", [*call, *INTERRUPTED]
    assert train_faces.main(call) == 128 + signal.SIGTERM
    printed = capsys.readouterr()
    assert "stopped by SIGTERM" in printed.err and f"train_faces.py --config {tmp_path}" in printed.err
    joined = tmp_path / "joined"
    joined.mkdir()
    FacePipeline.from_pretrained(train_faces.join_parts(out, joined))
    assert [row["step"] for row in read_rows(out / "metrics.csv")] == [str(i) for i in range(STOP)]

    assert train_faces.main(call) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"resuming {out}/unfinished-run/")
    assert f"after {STOP} steps" in printed.splitlines()[0] and "random weights" in printed.splitlines()[0]
    steps = len(read_rows(out / "metrics.csv"))
    assert [row["step"] for row in read_rows(out / "metrics.csv")] == [str(i) for i in range(steps)]
    assert not (out / "unfinished-run").exists()

    # The clock continued too: a run that is not interrupted has as many steps.
    assert train_faces.main([*call, "lightning.callbacks.terminate=null", "--from-scratch"]) == 0
    assert capsys.readouterr().out.startswith("new run from random weights\n")  # not from those in --out
    assert abs(len(read_rows(out / "metrics.csv")) - steps) <= 1


def test_an_unfinished_run_is_not_continued_with_other_settings(call, clock, tmp_path, capsys) -> None:
    out, call = tmp_path / "faces", [*call, *INTERRUPTED]
    assert train_faces.main(call) == 128 + signal.SIGTERM
    (run,) = (out / "unfinished-run").glob("*_train")
    config = load_config([run / "config.yaml"])["lightning"]
    assert config["trainer"]["precision"] == "auto"
    assert config["checkpoint"] == {"every_n_minutes": 15, "every_n_steps": None}
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    for change, words in (
        (["data.params.batch_size=2"], ["data.params.batch_size is 4 there, and 2 in this command"]),
        (["model.params.ema_decay=0.5", "--warmup", "7"], ["--warmup is 2 there, and 7", "1 more"]),
        (["--start", str(tmp_path)], ["--start is 'None' there", str(tmp_path)]),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            train_faces.main([*call, *change])
        error = capsys.readouterr().err
        assert all(word in error for word in (*words, str(out / "unfinished-run"), "delete", "--out"))
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before

    # A shorter time ends the run, and what the command line names is not replaced by a default.
    shutil.rmtree(out / "unfinished-run")
    call += ["--from-scratch", "lightning.trainer.precision=bf16-mixed"]
    assert train_faces.main(call) == 128 + signal.SIGTERM
    assert "precision bf16-mixed" in capsys.readouterr().out
    assert train_faces.main([*call, "--minutes", "0.7"]) == 0
    assert STOP < len(read_rows(out / "metrics.csv")) <= STOP + 3


def test_one_process_trains_in_a_folder(tmp_path, call, capsys) -> None:
    with run_kept_in(tmp_path / "faces"), pytest.raises(SystemExit, match="2"):
        train_faces.main([*call, *INTERRUPTED])
    assert "another process trains in" in capsys.readouterr().err
    assert not (tmp_path / "faces").exists()  # nothing was written


def test_a_config_that_cannot_be_used_leaves_nothing(call, tmp_path, capsys) -> None:
    assert train_faces.main([*call, "--minutes", "1", "model.params.chanels=3"]) == 2
    assert "chanels" in capsys.readouterr().err
    assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize(
    ("config", "overrides", "folder"),
    [
        ("latent-diffusion/faces-256", [], "diffusion"),
        (
            "latent-diffusion/faces-256",
            ["model.params.ema_decay=0.99", "data.params.batch_size=1"],
            "diffusion",
        ),
        ("latent-diffusion/faces-256", ["model.params.unet_config.params.model_channels=64"], None),
        ("latent-diffusion/faces-256", ["model.params.parameterization=eps"], None),
        ("latent-diffusion/faces-256", ["half size"], None),
        ("latent-diffusion/faces-256-published", [], None),
        ("face-parser/faces", [], "parser"),
        ("autoencoder/faces-256", [], None),
        ("autoencoder/synthetic-64", [], None),
    ],
    ids=str,
)
def test_shipped_weights_are_those_of_the_same_networks(config, overrides, folder) -> None:
    file = train_faces.ROOT / "configs" / f"{config}.yaml"
    if overrides == ["half size"]:
        overrides = train_faces.half_size(load_config([file]))
    found = shipped_weights(load_config([file], overrides))
    assert found == (folder and train_faces.ROOT / "checkpoints" / "faces" / folder)


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
