"""Averages whose length is chosen afterwards: written by a training, resumed, and made into weights."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint
from ldm.targets import ConfigError, instantiate_from_config
from ldm.training.finite import FiniteLossGuard, NotFiniteError
from ldm.training.lightning_internals import ShardedStrategy
from ldm.training.posthoc_ema import PosthocEMA, averaged
from scripts import export_model
from tests import small
from tests.training.runs import only_run, train_here

STEPS = 4


def write_config(folder: Path) -> Path:
    model = small.diffusion(sample_steps=1, unet={"channel_mult": [1]}, use_ema=False, monitor=None)
    data = {
        "target": "main.DataModuleFromConfig",
        "params": {
            "batch_size": 2,
            "num_workers": 0,
            "train": {
                "target": "ldm.data.synthetic.dataset.SyntheticFaces",
                "params": {"size": 16, "length": 4},
            },
        },
    }
    average = {
        "target": "ldm.training.posthoc_ema.PosthocEMA",
        "params": {"every_n_steps": 3, "precision": "float32"},
    }
    lightning = {
        "trainer": {"max_steps": STEPS, "accelerator": "cpu", "enable_progress_bar": False},
        "callbacks": {"posthoc_ema": average, "image_logger": {"params": {"disabled": True}}},
        "checkpoint": {"every_n_steps": 2},
    }
    OmegaConf.save(
        OmegaConf.create({"model": model, "data": data, "lightning": lightning}), folder / "m.yaml"
    )
    return folder / "m.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return the folder of a run that was stopped after two of its steps and then resumed."""
    place = tmp_path_factory.mktemp("posthoc")
    assert train_here(place, "lightning.trainer.max_steps=2", base=write_config(place)) == 0
    folder = only_run(place)
    assert train_here(place, f"lightning.trainer.max_steps={STEPS}", resume=folder) == 0
    return folder


def test_a_resumed_run_writes_what_an_uninterrupted_one_writes(run: Path, tmp_path: Path) -> None:
    assert train_here(tmp_path, base=write_config(tmp_path)) == 0
    whole = only_run(tmp_path)
    names = sorted(file.name for file in (whole / "ema").iterdir())
    assert names == [f"step_0000000{step}_sigma_{s}.safetensors" for step in (3, 4) for s in (0.05, 0.1)]
    for name in names:
        expected, found = (load_file(folder / "ema" / name) for folder in (whole, run))
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, msg=key)


def test_a_length_becomes_a_model_to_pass_on(run: Path, tmp_path: Path, capsys) -> None:
    out = ["--precision", "float32"]
    assert export_model.main([str(run), str(tmp_path / "out"), "--ema-length", "0.1", *out]) == 0
    assert "averaged (0.1) weights" in capsys.readouterr().out
    written, last = read_checkpoint(tmp_path / "out"), read_checkpoint(run / "checkpoints/last.ckpt")
    tracked = load_file(run / "ema/step_00000004_sigma_0.1.safetensors")
    assert written.step == STEPS
    assert {key.partition(".")[0] for key in tracked} == {"model", "cond_stage_model"}
    for key, tensor in tracked.items():
        torch.testing.assert_close(written.state_dict[key], tensor, rtol=1e-3, atol=1e-6)
    weight = "model.diffusion_model.input_blocks.0.0.weight"
    assert not torch.equal(written.state_dict[weight], last.state_dict[weight])
    frozen = "first_stage_model.quantize.embedding.weight"
    assert torch.equal(written.state_dict[frozen], last.state_dict[frozen])


def test_what_cannot_be_averaged_is_said(run: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(CheckpointError, match=r"no EMA snapshots in .* with the callback"):
        averaged(tmp_path, 0.1)
    with pytest.raises(SystemExit):
        export_model.main([str(run), str(tmp_path / "out"), "--ema-length", "0.5"])
    assert "sigma_rel must be in (0, 0.28), such as 0.05 or 0.1, got 0.5" in capsys.readouterr().err
    for options, message in (
        ({"precision": "int8"}, "precision must be one of float16"),
        ({"sigma_rels": [0.4]}, "sigma_rel must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            PosthocEMA(**{"every_n_steps": 1, **options})
    with pytest.raises(
        ConfigError, match=r"sigma_rels must be \[0.2\] as in the resumed run, got \[0.05, 0.1\]"
    ):
        PosthocEMA(1).load_state_dict(PosthocEMA(1, [0.2]).state_dict())
    (tmp_path / "ema").mkdir()
    (tmp_path / "ema/a.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="damaged"):
        averaged(tmp_path, 0.1)


def test_a_loss_that_is_not_finite_leaves_no_snapshot(tmp_path: Path) -> None:
    """Even where the guard, as on a GPU, would look at the losses of these steps only later."""
    model = instantiate_from_config(small.diffusion(use_ema=False))
    model.learning_rate = 1e-4
    batches = [small.batch(2) for _ in range(8)]
    batches[3]["image"] = batches[3]["image"] * torch.nan
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[FiniteLossGuard(10), PosthocEMA(5)],
    )
    with pytest.raises(NotFiniteError, match="the loss is nan at step 3"):
        trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))
    assert not (tmp_path / "ema").exists()


def test_shares_of_weights_are_refused() -> None:
    trainer = SimpleNamespace(strategy=ShardedStrategy(), global_step=0, is_global_zero=True)
    with pytest.raises(ConfigError, match=r"strategy=fsdp"):
        PosthocEMA(1).on_train_start(trainer, instantiate_from_config(small.diffusion()))
