"""Writing checkpoints so that the last good one survives."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ldm.training.checkpointing import AtomicCheckpointIO, CheckpointWriter
from tests.training.runs import only_run, train_here


class NotPlain:
    """Something whose pickle names a class, which safe loading refuses."""


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    content = {"state_dict": {"w": torch.randn(3, 4)}, "loops": {"step": 7}, "none": None}
    path = tmp_path / "deep" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content, path)
    found = AtomicCheckpointIO().load_checkpoint(path)
    assert torch.equal(found["state_dict"]["w"], content["state_dict"]["w"])
    assert found["loops"] == content["loops"] and list(path.parent.iterdir()) == [path]


def test_a_checkpoint_that_would_not_load_leaves_the_last_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(RuntimeError, match="cannot be loaded again"):
        AtomicCheckpointIO().save_checkpoint({"step": 2, "odd": NotPlain()}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}


def test_loading_executes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    torch.save({"odd": NotPlain()}, path)
    with pytest.raises(Exception, match=r"Weights only load failed|Unsupported"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)


def test_settings_out_of_range_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"every_n_steps must be above 0.*got 0"):
        CheckpointWriter(tmp_path, every_n_steps=0)
    with pytest.raises(ValueError, match="monitor_mode must be min or max, got 'least'"):
        CheckpointWriter(tmp_path, monitor_mode="least")


def test_best_is_the_checkpoint_of_the_lowest_monitor(tmp_path: Path) -> None:
    for mode in ("min", "max"):
        (tmp_path / mode).mkdir()
        setting = f"lightning.checkpoint.monitor_mode={mode}"
        assert train_here(tmp_path / mode, setting, "lightning.trainer.max_epochs=2") == 0
    steps = {
        mode: torch.load(only_run(tmp_path / mode) / "checkpoints" / "best.ckpt", weights_only=True)[
            "global_step"
        ]
        for mode in ("min", "max")
    }
    assert steps == {"min": 14, "max": 7}  # the tiny model's validation loss falls


def test_a_monitor_that_is_never_logged_is_called_out_once(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"monitor 'val/lose' is not logged.*logged: .*val/loss") as caught:
        assert train_here(tmp_path, "model.params.monitor=val/lose", "lightning.trainer.max_epochs=2") == 0
    assert sum("val/lose" in str(warning.message) for warning in caught) == 1
    assert [file.name for file in (only_run(tmp_path) / "checkpoints").iterdir()] == ["last.ckpt"]


def test_weights_that_are_not_finite_are_not_the_best(tmp_path: Path) -> None:
    """A finite monitor does not vouch for the weights."""
    explode = ("model.params.explode_at=6", "model.params.monitor=train/first")  # the last batch of an epoch
    assert train_here(tmp_path, *explode) == 3
    assert not list((only_run(tmp_path) / "checkpoints").iterdir())


def processes(count: int, others: bool = False) -> tuple[Any, list[bool]]:
    """Return a Trainer of `count` processes, and what it has asked them: those after the first say `others`."""
    asked: list[bool] = []

    def reduce_boolean_decision(here: bool, all: bool) -> bool:
        assert not all
        asked.append(here)
        return here or others

    strategy = SimpleNamespace(reduce_boolean_decision=reduce_boolean_decision)
    return SimpleNamespace(world_size=count, strategy=strategy), asked


def test_one_process_stops_at_once_and_several_agree_every_ten_batches(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path)
    trainer, asked = processes(1)
    assert [writer._agree(trainer, here, 3) for here in (True, False)] == [True, False] and asked == []
    for others in (False, True):
        trainer, asked = processes(2, others)
        stops = [batch for batch in range(1, 31) if writer._agree(trainer, not others, batch)]
        assert stops == [10, 20, 30] and asked == [not others] * 3


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    explode = ("model.params.explode_at=4", "lightning.checkpoint.every_n_steps=1")
    assert train_here(tmp_path, *explode) == 3
    saved = torch.load(only_run(tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
