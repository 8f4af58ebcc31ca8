"""What can be known of several processes before they start; how they train is in test_processes.py."""

from pathlib import Path

import pytest
from pytorch_lightning.strategies import DDPStrategy

from ldm.modules.ema import EMA
from ldm.targets import instantiate_from_config
from ldm.training.parallel import keep_averages_local, strategy_named
from tests import small
from tests.training.runs import train_here


def test_a_strategy_that_a_model_cannot_be_trained_with_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path, "lightning.trainer.strategy=fsdp") == 2
    message = "strategy=fsdp requires a diffusion model, got TinyModel"
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_data_parallel_training_sends_no_averages_around() -> None:
    model = instantiate_from_config(small.diffusion(ema_style_encoder=True))
    keep_averages_local(model)
    ignored = set(model._ddp_params_and_buffers_to_ignore)
    buffers = {name for name, _ in model.named_buffers()}
    averages = sum(len(list(part.buffers())) for part in model.modules() if isinstance(part, EMA))
    assert ignored < buffers and len(ignored) == averages > 100
    assert "scale_factor" not in ignored and not any(name.startswith("first_stage") for name in ignored)


def test_ddp_gloo_is_data_parallel_over_gloo() -> None:
    strategy = strategy_named("ddp_gloo")
    assert type(strategy) is DDPStrategy and strategy.process_group_backend == "gloo"
    assert strategy_named("ddp") == "ddp"
