"""Settings of Lightning's Trainer that a recipe may want, with the real models."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.training.runs import TINY, only_run, rows, train_here
from tests.training.test_processes import (
    DIFFUSION,
    FIRST_STAGE,
    OF_DIFFUSION,
    OF_FIRST_STAGE,
    SHORT,
    assert_same,
    train_alone,
)


def test_gathered_batches_get_the_weights_of_one_large_batch(tmp_path: Path) -> None:
    """What is drawn for a picture depends on its number in the run, not on the batch that it comes in."""
    own = (*SHORT, *OF_DIFFUSION, "model.params.scale_by_std=false", "lightning.trainer.limit_val_batches=0")
    ends = {}
    for size, gathered, clip in ((4, 1, 0.05), (2, 2, 0.05), (4, 1, 0)):
        ends[gathered, clip] = train_alone(
            tmp_path / f"{gathered} {clip}",
            *own,
            f"data.params.batch_size={size}",
            f"lightning.trainer.accumulate_grad_batches={gathered}",
            f"lightning.trainer.gradient_clip_val={clip}",
            base=DIFFUSION,
        )
    assert_same(ends[2, 0.05], ends[1, 0.05])
    with pytest.raises(AssertionError):
        assert_same(ends[1, 0], ends[1, 0.05])


@pytest.mark.parametrize("base", [DIFFUSION, FIRST_STAGE], ids=["diffusion", "first stage"])
def test_half_precision_computes_in_bfloat16_and_keeps_float32_weights(tmp_path: Path, base: Path) -> None:
    own = OF_DIFFUSION if base is DIFFUSION else OF_FIRST_STAGE
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        folder = tmp_path / precision
        folder.mkdir()
        overrides = (*SHORT, *own, f"lightning.trainer.precision={precision}", "data.params.batch_size=4")
        more = ("lightning.trainer.gradient_clip_val=1.0", "lightning.trainer.log_every_n_steps=1")
        assert train_here(folder, *overrides, *more, base=base) == 0
        losses[precision] = [float(row["train/loss"]) for row in rows(folder)]
        saved = torch.load(only_run(folder) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert {value.dtype for value in saved.values() if value.is_floating_point()} == {torch.float32}
    pairs = list(zip(*losses.values(), strict=True))
    assert len(pairs) == 5 and all(math.isclose(full, half, rel_tol=0.05) for full, half in pairs)
    assert any(full != half for full, half in pairs)


def test_a_short_run_logs_every_step(tmp_path: Path) -> None:
    config = OmegaConf.create(TINY)
    del config.lightning.trainer["log_every_n_steps"]
    OmegaConf.save(config, tmp_path / "short.yaml")
    limits = ("lightning.trainer.max_epochs=null", "lightning.trainer.max_steps=3")
    assert train_here(tmp_path, *limits, base=tmp_path / "short.yaml") == 0
    assert [row["step"] for row in rows(tmp_path) if row.get("train/loss")] == ["0", "1", "2"]
