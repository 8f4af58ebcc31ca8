"""A run that was killed, told to stop or crashed goes on as if nothing had happened."""

import os
import signal
from pathlib import Path

import pytest
import torch

from scripts import draw_faces
from tests.training.runs import ROOT, only_run, output_of, rows, start_process, train_here, wait_until
from tests.training.tiny import CrashError

VARIANTS: dict[str, tuple[str, ...]] = {
    "validation within epochs": ("lightning.trainer.val_check_interval=3",),
    "no validation": ("lightning.trainer.limit_val_batches=0",),
    "steps": ("lightning.trainer.max_steps=17", "lightning.trainer.max_epochs=null"),
    "accumulation": ("lightning.trainer.accumulate_grad_batches=2", "lightning.trainer.val_check_interval=2"),
    "two optimizers": ("model.params.manual=true",),
    "validation by steps": (
        "lightning.trainer.val_check_interval=5",
        "lightning.trainer.check_val_every_n_epoch=null",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert train_here(folder) == 0
    logged = rows(folder)
    assert len({row["train/loss"] for row in logged}) == len(logged) == 21
    return folder


def crash(folder: Path, every: int, at: int, *overrides: str) -> None:
    """Train with a checkpoint every `every` steps until step `at` raises."""
    folder.mkdir()
    with pytest.raises(CrashError):
        train_here(
            folder, *overrides, f"model.params.crash_at={at}", f"lightning.checkpoint.every_n_steps={every}"
        )


def pause_at(step: int) -> str:
    return f"lightning.callbacks.pause={{target: tests.training.tiny.Pause, params: {{step: {step}}}}}"


# The checkpoint that is left is: in the first epoch; at its end, validation pending; in the second epoch.
@pytest.mark.parametrize(("every", "at"), [(3, 5), (7, 8), (5, 12)])
def test_a_crashed_run_resumes_exactly(tmp_path: Path, whole: Path, every: int, at: int) -> None:
    crash(tmp_path / "run", every, at)
    assert rows(tmp_path / "run") != rows(whole)
    assert train_here(tmp_path / "run", "model.params.crash_at=-1", resume=only_run(tmp_path / "run")) == 0
    assert rows(tmp_path / "run") == rows(whole)
    for file in ("last.ckpt", "best.ckpt"):
        weights, expected = (
            torch.load(only_run(folder) / "checkpoints" / file, weights_only=True)["state_dict"]
            for folder in (tmp_path / "run", whole)
        )
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_crashed_run_resumes_exactly_however_it_validates_and_steps(tmp_path: Path, variant: str) -> None:
    (tmp_path / "whole").mkdir()
    assert train_here(tmp_path / "whole", *VARIANTS[variant]) == 0
    crash(tmp_path / "run", 6, 9, *VARIANTS[variant])
    assert train_here(tmp_path / "run", "model.params.crash_at=-1", resume=only_run(tmp_path / "run")) == 0
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_process_resumes_exactly(tmp_path: Path, whole: Path, workers: int) -> None:
    overrides = [f"data.params.num_workers={workers}", "lightning.checkpoint.every_n_steps=5"]
    process = start_process(tmp_path, *overrides, pause_at(8))
    wait_until(lambda: any((tmp_path / "runs").glob("*/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGKILL)
    output_of(process)
    assert 5 <= len(rows(tmp_path)) <= 8
    assert train_here(tmp_path, "lightning.callbacks.pause=null", resume=only_run(tmp_path)) == 0
    assert rows(tmp_path) == rows(whole)


def test_a_killed_process_that_trains_the_real_model_resumes_exactly(tmp_path: Path) -> None:
    smallest = ROOT / "configs" / "latent-diffusion" / "synthetic-32.yaml"
    overrides = [
        "model.params.first_stage_config.params.ckpt_path=null",
        "model.params.unet_config.params.channel_mult=[1, 1]",
        "data.params={batch_size: 2, train: {params: {size: 16}}, validation: {params: {size: 16, length: 2}}}",
        "lightning.trainer={accelerator: cpu, max_steps: 7, val_check_interval: 4, log_every_n_steps: 1}",
        "lightning.checkpoint.every_n_steps=3",
        "lightning.callbacks.image_logger.params.disabled=true",
    ]
    process = start_process(tmp_path / "killed", *overrides, pause_at(5), base=smallest)
    wait_until(lambda: any((tmp_path / "killed").glob("runs/*/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGKILL)
    output_of(process)
    assert 3 <= len(rows(tmp_path / "killed")) <= 5
    killed = only_run(tmp_path / "killed")
    assert train_here(tmp_path / "killed", "lightning.callbacks.pause=null", resume=killed) == 0
    assert train_here(tmp_path / "whole", *overrides, base=smallest) == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) == 7 and any(
        row["val/loss_simple_ema"] for row in rows(tmp_path / "whole")
    )


@pytest.mark.parametrize(
    ("signum", "code", "pause", "step"),
    [
        (signal.SIGINT, 130, "model.params.pause=0.3", 3),  # between two steps of training
        (signal.SIGTERM, 143, "model.params.validation_pause=1", 6),  # in a validation
        (signal.SIGHUP, 129, "model.params.pause=0.3", 3),  # a dropped ssh
    ],
)
def test_a_signal_writes_a_checkpoint_and_loses_nothing(
    tmp_path: Path, whole: Path, signum: int, code: int, pause: str, step: int
) -> None:
    process = start_process(tmp_path, pause)
    wait_until(
        lambda: any(f"\n{step}," in f.read_text() for f in tmp_path.glob("runs/*/metrics.csv")), process
    )
    process.send_signal(signum)
    output = output_of(process)
    assert process.returncode == code, output
    assert "Traceback" not in output and "--resume" in output
    run = only_run(tmp_path)
    stopped_at = int(rows(tmp_path)[-1]["step"])
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (
        saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"] == stopped_at + 1 < 21
    )
    assert train_here(tmp_path, "model.params.pause=0", "model.params.validation_pause=0", resume=run) == 0
    assert rows(tmp_path) == rows(whole)


def test_a_signal_to_the_whole_process_group_leaves_the_readers_alive_until_the_checkpoint(
    tmp_path: Path,
) -> None:
    reading = ("data.params.num_workers=2", "data.params.train.params.length=400")
    process = start_process(tmp_path, *reading, "model.params.pause=0.2", group=True)
    wait_until(lambda: any("\n2," in f.read_text() for f in tmp_path.glob("runs/*/metrics.csv")), process)
    os.killpg(process.pid, signal.SIGTERM)
    output = output_of(process)
    assert process.returncode == 143, output
    assert "Traceback" not in output and "--resume" in output
    saved = torch.load(only_run(tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == len(rows(tmp_path)) < 100


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    limit = "lightning.trainer.max_epochs=null"
    for name, steps in (("whole", 17), ("longer", 10)):
        (tmp_path / name).mkdir()
        assert train_here(tmp_path / name, limit, f"lightning.trainer.max_steps={steps}") == 0
    run = only_run(tmp_path / "longer")
    assert train_here(tmp_path / "longer", "lightning.trainer.max_steps=17", resume=run) == 0
    assert rows(tmp_path / "longer") == rows(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    assert train_here(tmp_path, "lightning.trainer.max_epochs=1") == 0
    before = rows(tmp_path)
    assert train_here(tmp_path, resume=only_run(tmp_path)) == 0
    assert rows(tmp_path) == before


def test_picture_grids_do_not_disturb_training(tmp_path: Path, whole: Path) -> None:
    assert train_here(tmp_path, "lightning.callbacks.image_logger.params.disabled=false") == 0
    assert list(only_run(tmp_path).glob("images/*.png")) != []
    assert list(only_run(whole).glob("images/*.png")) == []
    assert rows(tmp_path) == rows(whole)


def test_a_run_resumes_from_its_checkpoint_behind_a_link_and_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert draw_faces.main(["faces", "--count", "8", "--size", "16"]) == 0
    faces = "{target: dataset.CelebAHQ, params: {size: 16, path: faces}}"
    data = f"data.params={{train: {faces}, validation: {faces}}}"
    assert train_here(tmp_path, data, "lightning.trainer.max_epochs=1") == 0
    run = only_run(tmp_path)
    (run / "checkpoints").rename(tmp_path / "other_disk")
    (run / "checkpoints").symlink_to(tmp_path / "other_disk")
    monkeypatch.chdir(tmp_path)
    last = Path(os.path.relpath(run / "checkpoints" / "last.ckpt"))
    assert train_here(tmp_path, "lightning.trainer.max_epochs=2", resume=last) == 0
    assert len(rows(tmp_path)) == 4
