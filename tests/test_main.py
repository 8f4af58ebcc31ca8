"""The command line, and what a run leaves behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import main
from ldm.training.metrics_csv import read_rows
from ldm.training.run_folder import RunFolder
from tests.training.runs import ROOT, only_run, train_here, write_tiny


def call(*arguments: str | Path) -> int:
    """Call main in this process, with the classes of the tests; argparse's own exits become codes."""
    try:
        return main.main([*map(str, arguments), "--allow-targets=tests"])
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        return leaving.code


def test_help_answers() -> None:
    done = subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "--resume" in done.stdout and "dotted.key=value" in done.stdout


def test_help_needs_none_of_the_slow_imports() -> None:
    probe = "import sys, main; main.build_parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT).returncode == 0


def test_overrides_are_found_wherever_they_stand() -> None:
    expected = (["a.yaml", "b.yaml"], ["x.y=1", "z=[1,2]"], "train")
    for words in (
        "-b a.yaml b.yaml -t x.y=1 z=[1,2]",
        "-b a.yaml b.yaml x.y=1 z=[1,2] -t",
        "-t -b a.yaml b.yaml x.y=1 --name n z=[1,2]",
    ):
        options = main.parse(words.split())
        assert (options.base, options.overrides, options.action) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-b", "BASE"], "nothing to do; add -t"),
        (["-t"], "no config; name one with -b"),
        (
            ["-b", "BASE", "-t", "--logdr", "x"],
            "'--logdr' is neither an option nor dotted.key=value; did you mean '--logdir'",
        ),
        (["-b", "nowhere.yaml", "-t"], "there is no file nowhere.yaml"),
        (["-b", "BASE", "-t", "--seed", "-1"], "--seed must be in [0, 4294967295], got -1"),
        (["-b", "BASE", "-t", "seed=two"], "seed must be an integer in [0, 2**32), got 'two'"),
        (["-b", "BASE", "-t", "model.params.widht=1"], "takes no parameter 'widht'; did you mean 'width'"),
        (["-b", "BASE", "-t", "model.target=tests.training.tiny.TinyModle"], "did you mean 'TinyModel'"),
        (
            ["-b", "BASE", "-t", "model.target=tests.training.tiny.TinyFaces", "model.params={length: 2}"],
            "model.target must be a LightningModule, got tests.training.tiny.TinyFaces",
        ),
        (
            ["-b", "BASE", "-t", "model.base_learning_rate=fast"],
            "model.base_learning_rate must be a number, got 'fast'",
        ),
        (["-b", "BASE", "-t", "data.params.train.params.size=7"], "size is 7; expected a multiple of 4"),
        (["-b", "BASE", "-t", "data.params.batch_size=31"], "too few for one batch of 31"),
        (["-b", "BASE", "-t", "data.params.train=null"], "no 'train' dataset"),
        (["-b", "BASE", "-t", "model.params.width=???"], "no value for model.params.width"),
        (["-b", "BASE", "--test"], "no 'test' dataset"),
        (
            ["-b", "BASE", "-t", "lightning.trainer.max_stpes=1"],
            "no option 'max_stpes'; did you mean 'max_steps'",
        ),
        (
            ["-b", "BASE", "-t", "lightning.trainer.max_steps=many"],
            "lightning.trainer: max_steps must be an integer, got 'many'",
        ),
        (["-b", "BASE", "-t", "lightning.trainer.accelerator=abacus"], "abacus"),
        (
            ["-b", "BASE", "-t", "lightning.trainer.val_check_interval=100"],
            "val_check_interval is 100, but an epoch has 7 batches; lower it",
        ),
        (
            ["-b", "BASE", "-t", "model.params.manual=true", "lightning.trainer.gradient_clip_val=0.5"],
            "gradient_clip_val=0.5 is incompatible with a model with a discriminator",
        ),
        (
            ["-b", "BASE", "-t", "data.params.batch_size=four"],
            "batch_size must be an integer, got 'four'",
        ),
        (
            ["-b", "BASE", "-t", "model.params.width=wide"],
            "TinyModel cannot be built with width: 'wide'",
        ),
        (["-b", "BASE", "--validate"], "--validate needs trained weights; name a run with --resume"),
        (["-b", "BASE", "-t", "lightning.callbacks.image_logger.params.cel=9"], "did you mean 'cell'"),
        (["-t", "--resume", "nowhere"], "--resume nowhere: no run there"),
    ],
)
def test_a_users_error_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    base = str(write_tiny(tmp_path))
    words = [base if word == "BASE" else word for word in arguments]
    assert call(*words, "--logdir", tmp_path / "runs") == 2
    output, errors = capsys.readouterr()
    last = errors.strip().splitlines()[-1]
    assert last.startswith("main.py: error: ") and message in last
    assert "Traceback" not in output + errors
    assert not (tmp_path / "runs").exists()


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    output, errors = capsys.readouterr()
    assert "Traceback" not in output + errors
    return errors.strip().splitlines()[-1]


def test_an_error_that_only_lightning_notices_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path, "lightning.trainer.limit_train_batches=0.01") == 2
    assert "limit_train_batches" in last_error(capsys)


def test_what_a_run_cannot_resume_from_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path, "lightning.trainer.max_epochs=1") == 0
    run = only_run(tmp_path)
    last, best, config = (
        run / "checkpoints" / "last.ckpt",
        run / "checkpoints" / "best.ckpt",
        run / "config.yaml",
    )
    before = config.read_text()
    assert call("--resume", run, "-t", "model.params.width=16") == 2
    message = last_error(capsys)
    assert all(word in message for word in ("model.0.weight", "[8, 3, 3, 3]", "[16, 3, 3, 3]"))
    assert f"set model.params as in {config}" in message and config.read_text() == before
    whole = last.read_bytes()
    for size in (0, 100, len(whole) // 2):
        last.write_bytes(whole[:size])
        for action in ("-t", "--validate"):
            assert call("--resume", run, action) == 2
            message = last_error(capsys)
            assert f"{last}: damaged (" in message
            assert f"resume from best.ckpt in the same folder: --resume {best}" in message
    assert call("--resume", best, "--validate") == 0
    torch.save({"state_dict": torch.load(best, weights_only=True)["state_dict"]}, last)
    capsys.readouterr()
    assert call("--resume", run, "-t") == 2
    assert "no training state to resume from" in last_error(capsys)


def test_a_picture_that_cannot_be_read_ends_a_run_with_the_way_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("training", "validation"):
        (tmp_path / name).mkdir()
    cut = "data.params.train.params.unreadable=11"
    assert train_here(tmp_path / "training", cut, "lightning.checkpoint.every_n_steps=1") == 2
    message = last_error(capsys)
    assert "11.jpg is cut off; copy it again; resume from the last checkpoint with: python main.py" in message
    grids = "lightning.callbacks.image_logger.params.disabled=false"
    cut = "data.params.validation.params.unreadable=0"
    assert train_here(tmp_path / "validation", cut, grids, "lightning.trainer.num_sanity_val_steps=0") == 2
    assert last_error(capsys).endswith("0.jpg is cut off; copy it again, before the first checkpoint")


def test_a_resumed_run_says_where_its_learning_rate_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path, "lightning.trainer.max_epochs=1") == 0
    assert "learning rate 0.004 = " in capsys.readouterr().out
    longer = "lightning.trainer.max_epochs=2"
    with pytest.warns(UserWarning, match=r"batch_size changed from 4 to 5: the learning rate stays"):
        assert train_here(tmp_path, longer, "data.params.batch_size=5", resume=only_run(tmp_path)) == 0
    output = capsys.readouterr().out
    assert "learning rate: as in the checkpoint" in output and "(base)" not in output


def test_the_progress_bar_can_be_switched_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = "lightning.trainer.enable_progress_bar=false"
    assert train_here(tmp_path, quiet, "lightning.trainer.max_steps=2") == 0
    assert "images/s" not in capsys.readouterr().out


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = [RunFolder.new(tmp_path / "runs", "faces") for _ in range(4)]
    assert len({folder.path for folder in folders}) == 4 and all(f.path.is_dir() for f in folders)
    (folders[1].path / "kept").touch()
    for folder in reversed(folders):
        folder.discard()
    assert list((tmp_path / "runs").iterdir()) == [folders[1].path]
    shutil.rmtree(folders[1].path)
    folders[0].discard()
    (tmp_path / "runs").rmdir()  # was kept: it was not empty when the first run gave it up
    RunFolder.new(tmp_path / "runs", "faces").discard()
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_prints_the_merged_config_and_the_parameter_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_tiny(tmp_path)
    assert (
        call("-b", base, "--dry-run", "model.params.width=16", "--seed", "5", "--logdir", tmp_path / "runs")
        == 0
    )
    text, table = capsys.readouterr().out.split("\n\n", 1)
    config = yaml.safe_load(text)
    assert config["model"]["params"] == {"width": 16} and config["seed"] == 5
    unet, first_stage, total = (line.split() for line in table.splitlines())
    weights = 16 * 3 * 9 + 16 + 3 * 16 + 3
    assert unet == ["UNet", str(weights), "parameters,", str(weights), "trained"]
    assert first_stage == ["first", "stage", "12", "parameters,", "0", "trained"]
    assert total == ["total", str(weights + 12), "parameters,", str(weights), "trained"]
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_needs_no_weight_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("-b", ROOT / "configs" / "latent-diffusion" / "synthetic-32.yaml", "--dry-run") == 0
    output = capsys.readouterr().out
    assert "ckpt_path: ???" in output
    for part in ("UNet", "first stage", "style encoder", "total"):
        assert any(line.startswith(part) and "parameters," in line for line in output.splitlines())


def test_a_run_folder_holds_what_a_run_was(tmp_path: Path) -> None:
    base = write_tiny(tmp_path)
    words = ("-b", base, "-t", "--name", "faces", "--seed", "7", "--logdir", tmp_path / "runs")
    assert call(*words, "lightning.trainer.max_epochs=1", "--no-scale-lr") == 0
    run = only_run(tmp_path)
    assert run.name.endswith("_faces")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["seed"] == 7 and config["lightning"]["trainer"]["max_epochs"] == 1
    (start,) = json.loads((run / "versions.json").read_text())["starts"]
    assert (
        start["seed"] == 7 and start["resumed_from"] is None and start["torch"] and start["pytorch-lightning"]
    )
    assert {"commit", "dirty", "command", "python", "started"} <= start.keys()
    assert {file.name for file in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert [row["step"] for row in read_rows(run / "metrics.csv")] == [str(n) for n in range(7)]
    assert list((run / "tensorboard").glob("events.*"))
    assert call("--resume", run, "-t", "lightning.trainer.max_epochs=2") == 0
    starts = json.loads((run / "versions.json").read_text())["starts"]
    assert [s["resumed_from"] for s in starts] == [None, "last.ckpt"] and starts[1]["seed"] == 7
    assert len(read_rows(run / "metrics.csv")) == 14
    assert only_run(tmp_path) == run


def test_a_seed_repeats_a_run_and_another_changes_it(tmp_path: Path) -> None:
    losses = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        assert train_here(tmp_path / name, f"seed={seed}", "lightning.trainer.max_steps=3") == 0
        losses.append([row["train/loss"] for row in read_rows(only_run(tmp_path / name) / "metrics.csv")])
    assert losses[0] == losses[1] and not set(losses[0]) & set(losses[2])


def test_a_run_can_be_validated_and_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_here(tmp_path, "lightning.trainer.max_epochs=1") == 0
    run = only_run(tmp_path)
    validated = float(read_rows(run / "metrics.csv")[-1]["val/loss"])
    before = sorted(run.rglob("*"))
    assert call("--resume", run, "--validate") == 0
    assert f"{validated:.6f}"[:7] in capsys.readouterr().out
    test_set = "data.params.test={target: tests.training.tiny.TinyFaces, params: {length: 6}}"
    assert call("--resume", run, "--test", test_set) == 0
    assert f"{validated:.6f}"[:7] in capsys.readouterr().out  # the same pictures, the same noise
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("manual", ["false", "true"])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], manual: str
) -> None:
    broken = "data.params.train.params.broken=4"
    assert train_here(tmp_path, broken, f"model.params.manual={manual}") == 3
    errors = capsys.readouterr().err
    assert "the loss is nan at step" in errors and "4.jpg" in errors and "Traceback" not in errors
    steps = [int(row["step"]) for row in read_rows(only_run(tmp_path) / "metrics.csv")]
    assert f"at step {len(steps)} " in errors
