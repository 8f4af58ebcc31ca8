"""`make gpu`: every part in small on the CPU, and what its rows measure."""

import json
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from ldm.training.seeding import StepSeeding
from scripts.gpu import (
    faces,
    processes,
    report,
    sampling,
    training,
    unit_tests,
)
from scripts.gpu.models import Models, batch_of, bfloat16_weights, gflop_of
from scripts.gpu.trainer_step import TrainerStep
from tests import shipped, small

CPU = torch.device("cpu")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


# --- each part in small ---


@pytest.mark.parametrize(
    ("part", "kinds"),
    [
        (
            sampling,
            (
                *("step, batch 1, bfloat16, eager", "step, batch 2, bfloat16, channels last, eager"),
                *("step, batch 1, bfloat16, bfloat16 weights, eager", "step, batch 1, bfloat16, compiled"),
                *(
                    "step, batch 1, float32, eager",
                    "decode, float32",
                    "whole image, 2 steps, bfloat16, batch 2",
                ),
            ),
        ),
        (
            training,
            ("batch 2, bfloat16, eager", "batch 2, bfloat16, channels last, eager", "bfloat16, compiled"),
        ),
    ],
    ids=["sampling", "training"],
)
def test_a_dry_run_measures_every_row(part, kinds: tuple[str, ...], tmp_path: Path, capsys) -> None:
    out = tmp_path / "part.json"
    assert part.main(["--dry-run", "--out", str(out)]) == 0
    found = read(out)
    assert found["matrix_tflops"].keys() == {"bfloat16", "float32"}
    for kind in kinds:
        assert any(kind in name for name in found["rows"]), kind
    assert all(row["ms"] > 0 and row["gflop"] > 0 and row["share"] > 0 for row in found["rows"].values())
    printed = capsys.readouterr().out
    assert all(name in printed for name in found["rows"])
    assert part.main(["--dry-run", "--resume", "--out", str(out)]) == 0
    assert read(out)["rows"] == found["rows"]


def test_a_dry_run_of_the_tests(tmp_path: Path) -> None:
    assert unit_tests.main(["--dry-run", "--out", str(tmp_path / "tests.json")]) == 0
    assert (tmp_path / "tests.xml").is_file()
    assert read(tmp_path / "tests.json")["rows"] == {"tests": {"passed": 3, "failed": 0, "without_device": 0}}


def test_a_dry_run_of_two_processes_gets_the_weights_of_one(tmp_path: Path) -> None:
    assert processes.main(["--dry-run", "--out", str(tmp_path / "processes.json")]) == 0
    (row,) = read(tmp_path / "processes.json")["rows"].values()
    assert row["tensors"] > 100 and 0 < row["largest_difference"] < 1e-7


def test_a_dry_run_of_a_minute_of_faces(tmp_path: Path) -> None:
    assert faces.main(["--dry-run", "--out", str(tmp_path / "faces.json")]) == 0
    (row,) = read(tmp_path / "faces.json")["rows"].values()
    assert row["images_per_s"] > 0 and row["steps"] > 0 and math.isfinite(row["loss_at_end"])


# --- what is measured ---


def test_the_measured_step_is_the_trainers() -> None:
    """Clipping, optimizer, autocast and averages: the same weights as Lightning's loop."""
    weights = []
    for loop in (True, False):
        model = small.sensitive(small.diffusion(ema_decay=0.5, probability_of_discard=0.5)).train()
        model.learning_rate = 1e-3
        batch = {name: value for name, value in small.batch().items() if torch.is_tensor(value)}
        if loop:
            options = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar")}
            trainer = pl.Trainer(
                accelerator="cpu",
                precision="bf16-mixed",
                gradient_clip_val=0.1,
                max_steps=3,
                enable_model_summary=False,
                callbacks=[StepSeeding(0)],
                **options,
            )
            trainer.fit(model, torch.utils.data.DataLoader([batch] * 3, batch_size=None))
        else:
            step = TrainerStep(model, 0.1, batch)
            assert step.optimizer.defaults["fused"]
            for _ in range(3):
                step()
            step.close()
            assert all(parameter.grad is None for parameter in model.parameters())
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    for name, value in weights[0].items():
        assert torch.equal(weights[1][name], value), name


@torch.no_grad()
@pytest.mark.parametrize("name", ["celebamask-hq", "faces-256"])
def test_bfloat16_weights_change_no_output(name: str) -> None:
    model = shipped.shrunk(name).eval()
    batch = shipped.batch(model, 1)
    z, t = torch.randn(1, model.channels, model.image_size, model.image_size), torch.tensor([417])
    with torch.autocast("cpu", torch.bfloat16):
        cond = model.prepare(model.conditions(batch), (model.image_size, model.image_size))
        expected = model.apply_model(z, t, cond)
        with bfloat16_weights(model.unet):
            assert torch.equal(model.apply_model(z, t, cond), expected)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_float32_rows_use_no_tf32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with report.without_tf32():
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_operations_are_those_of_a_product() -> None:
    a, b = torch.zeros(10, 20), torch.zeros(20, 30)
    assert gflop_of(lambda: a @ b) == 2 * 10 * 20 * 30 / 1e9
    loaded = Models(CPU, small=True)("synthetic-32")
    assert loaded.size == 32 and loaded.clip is None
    assert len(batch_of(loaded, 7)["labels"]) == 7


def test_losses_that_do_not_fall_are_an_error() -> None:
    assert faces.ends_of([2.0] * 10 + [1.0] * 10) == {"loss_at_start": 2.0, "loss_at_end": 1.0}
    assert "did not fall" in faces.ends_of([1.0] * 30)["error"]
    assert faces.ends_of([1.0] * 30, must_fall=False) == {"loss_at_start": 1.0, "loss_at_end": 1.0}
    assert "error" in faces.ends_of([])
