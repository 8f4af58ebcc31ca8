"""What can be known of several processes before they start; how they train is in test_processes.py."""

from pathlib import Path

import pytest

from ldm.modules.ema import EMA
from ldm.targets import instantiate_from_config
from ldm.training.parallel import keep_averages_local
from tests import small
from tests.training.runs import train_here


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("lightning.trainer.strategy=fsdp",), "strategy=fsdp is for the diffusion, not for TinyModel"),
        (
            ("lightning.trainer.strategy=ddp", "lightning.trainer.devices=2", "model.params.manual=true"),
            "wants lightning.trainer.strategy=ddp_find_unused_parameters_true on several devices",
        ),
    ],
)
def test_a_strategy_that_a_model_cannot_be_trained_with_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: tuple[str, ...], message: str
) -> None:
    assert train_here(tmp_path, *overrides) == 2
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
