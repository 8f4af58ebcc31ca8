"""FiniteLossGuard: each loss is looked at before it can reach a checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ldm.training.finite import FiniteLossGuard, NotFiniteError


def take(guard: FiniteLossGuard, losses: list[float]) -> None:
    """Pass the losses of consecutive steps to the guard; step n has the sample `n.png`."""
    model: Any = torch.nn.Linear(1, 1)
    for n, loss in enumerate(losses):
        trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=n), current_epoch=1)
        guard.on_train_batch_start(trainer, model, {"name": [f"{n}.png"]}, n)
        guard.on_before_backward(trainer, model, torch.tensor(loss))


def test_on_a_cpu_the_loss_is_looked_at_before_its_backward_pass() -> None:
    with pytest.raises(NotFiniteError, match=r"nan at step 1 \(epoch 1\), images 1\.png"):
        take(FiniteLossGuard(), [1.0, float("nan")])


def test_a_later_look_names_the_first_step_with_a_bad_loss() -> None:
    guard = FiniteLossGuard(every_n_steps=4)
    with pytest.raises(NotFiniteError, match=r"inf at step 2 \(epoch 1\), images 2\.png"):
        take(guard, [1.0, 2.0, float("inf"), float("nan")])


def test_only_a_weight_that_is_not_finite_is_refused() -> None:
    """Large values are finite, though their sum and their norm are not; frozen weights are not looked at."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(3, 2) for name in ("first", "second", "frozen")})
    model["frozen"].requires_grad_(False).weight.data.fill_(float("nan"))
    model["first"].weight.data.fill_(torch.finfo(torch.float32).max)
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=7), current_epoch=1)
    FiniteLossGuard().check_weights(trainer, model)
    for value in (float("nan"), float("-inf")):
        model["second"].bias.data[1] = value
        with pytest.raises(NotFiniteError, match=r"the weight second\.bias is not finite after step 7"):
            FiniteLossGuard().check_weights(trainer, model)


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_end", "check_weights"])
def test_validation_checkpoints_and_the_end_look_at_once(hook: str) -> None:
    guard = FiniteLossGuard(every_n_steps=100)
    take(guard, [1.0, float("nan"), 1.0])
    with pytest.raises(NotFiniteError, match=r"step 1 .*1\.png"):
        getattr(guard, hook)(None, torch.nn.Linear(1, 1))
    guard.check_losses()  # reported once
