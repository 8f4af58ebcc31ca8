"""TimeBudget, on a clock that the test moves."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from ldm.training import time_budget
from ldm.training.time_budget import TimeBudget


class Line(pl.LightningModule):
    """y = w x; notes the learning rate of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.learning_rate, self.rates = torch.nn.Linear(1, 1), 0.5, []

    def training_step(self, batch, batch_idx):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by 15 s each time it is read after a batch."""
    now = [100.0]
    monkeypatch.setattr(time_budget.time, "monotonic", lambda: now[0])
    return now


class Ticking(pl.Callback):
    """Moves the clock by 15 s a batch."""

    def __init__(self, now: list[float]) -> None:
        self.now = now

    def on_train_batch_start(self, *arguments) -> None:
        self.now[0] += 15


def train(clock, budget: TimeBudget, **options) -> Line:
    model = Line()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=100, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[budget, Ticking(clock)], **options,
    )  # fmt: skip
    trainer.fit(model, DataLoader(torch.ones(3, 1)))
    return model


def test_the_rate_follows_the_clock_to_zero_and_training_stops(clock) -> None:
    model = train(clock, TimeBudget(minutes=1, warmup_steps=2))
    # After 0, 15, 30 and 45 s of 60: warmup 1/2 and 1, then (1 + cos(pi t / T)) / 2.
    assert model.rates == pytest.approx([0.25, 0.5 * 0.853553, 0.5 * 0.5, 0.5 * 0.146447], rel=1e-5)


def test_a_resumed_clock_goes_on(clock) -> None:
    budget = TimeBudget(minutes=1, warmup_steps=0)
    budget.load_state_dict({"seconds": 30.0})
    model = train(clock, budget)
    assert model.rates == pytest.approx([0.25, 0.5 * 0.146447], rel=1e-5)
    assert budget.state_dict()["seconds"] == pytest.approx(60)


@pytest.mark.parametrize(
    "values", [{"minutes": 0}, {"minutes": float("nan")}, {"minutes": 1, "warmup_steps": -1}]
)
def test_numbers_out_of_range(values) -> None:
    with pytest.raises(ValueError, match="minutes"):
        TimeBudget(**values)
