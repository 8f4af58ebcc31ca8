"""AdamW within the backward pass against AdamW after it."""

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ldm.models.optimizers import AdamWInBackward
from ldm.targets import ConfigError, instantiate_from_config
from ldm.training.preflight import check_optimization
from tests import small
from tests.models.test_autoencoder import fit


def network() -> nn.Module:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    return nn.Sequential(
        nn.Linear(4, 6), shared, nn.SiLU(), shared, nn.Linear(6, 1)
    )  # one gets two gradients


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    schedule = LambdaLR(optimizer, lambda n: 1 / (n + 1))
    for i in range(steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(i))

        def closure(x=x):
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        schedule.step()


def test_the_same_weights_without_gradients_left_over() -> None:
    after, within = network(), network()
    optimizer = AdamWInBackward(within.parameters(), lr=0.01)
    train(after, torch.optim.AdamW(after.parameters(), lr=0.01, fused=True), 5)
    train(within, optimizer, 5)
    for expected, found in zip(after.parameters(), within.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
        assert found.grad is None
    assert len(optimizer.param_groups[0]["params"]) == 6


def test_its_state_is_adamws() -> None:
    first = network()
    optimizer = torch.optim.AdamW(first.parameters(), lr=0.01, fused=True)
    train(first, optimizer, 3)
    second = network()
    second.load_state_dict(first.state_dict())
    other = AdamWInBackward(second.parameters(), lr=0.5)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    train(first, optimizer, 2)
    train(second, other, 2)
    for expected, found in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_first_moment_in_half_precision_takes_nearly_the_same_steps() -> None:
    start, exact, halved = network(), network(), network()
    optimizer = AdamWInBackward(halved.parameters(), lr=0.01, bf16_first_moment=True)
    train(exact, AdamWInBackward(exact.parameters(), lr=0.01), 20)
    train(halved, optimizer, 20)
    for begun, expected, found in zip(
        start.parameters(), exact.parameters(), halved.parameters(), strict=True
    ):
        moved, apart = (expected - begun).norm(), (found - expected).norm()
        assert 0 < apart < 0.02 * moved
    for state in optimizer.state.values():
        assert state["exp_avg"].dtype == torch.bfloat16 and state["exp_avg_sq"].dtype == torch.float32


def test_half_a_moment_is_resumed_and_given_to_adamw() -> None:
    first = network()
    optimizer = AdamWInBackward(first.parameters(), lr=0.01, bf16_first_moment=True)
    train(first, optimizer, 3)
    saved = deepcopy((first.state_dict(), optimizer.state_dict()))
    train(first, optimizer, 2)
    for kind in (partial(AdamWInBackward, bf16_first_moment=True), torch.optim.AdamW):
        second = network()
        second.load_state_dict(saved[0])
        other = kind(second.parameters(), lr=0.01)
        other.load_state_dict(deepcopy(saved[1]))
        train(second, other, 2)
        tolerance = {"atol": 1e-4, "rtol": 0.0} if kind is torch.optim.AdamW else {}
        for expected, found in zip(first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(found, expected, **tolerance)


def test_half_a_moment_wants_the_steps_in_the_backward_pass() -> None:
    with pytest.raises(ValueError, match="bf16_first_moment"):
        instantiate_from_config(small.diffusion(bf16_first_moment=True))


def test_a_diffusion_trains_the_same_with_it(tmp_path) -> None:
    models = []
    for within in (False, True):
        torch.manual_seed(0)
        m = instantiate_from_config(small.diffusion(step_in_backward=within))
        m.learning_rate = 1e-3
        torch.manual_seed(1)
        fit(m.train(), 3, tmp_path)
        models.append(m)
    for (name, expected), found in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")
    averages = [m.model_ema.state_dict() for m in models]
    torch.testing.assert_close(averages[1], averages[0])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_with_fused_adamw(precision: str, tmp_path: Path) -> None:
    norms: list[float] = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
            (optimizer,) = trainer.optimizers
            assert optimizer.param_groups[0]["fused"]
            grads = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            norms.append(torch.nn.utils.get_total_norm(grads).item())

    for limit in ({}, {"gradient_clip_val": 1e-3}):
        model = instantiate_from_config(small.diffusion(anneal_steps=0)).train()
        fit(model, 1, tmp_path, precision=precision, callbacks=[Look()], **limit)
    assert norms[0] > 2e-3 and norms[1] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("option", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}])
def test_what_wants_all_gradients_at_once_is_refused(tmp_path, option) -> None:
    m = instantiate_from_config(small.diffusion(step_in_backward=True))
    with pytest.raises(ConfigError, match="step_in_backward"):
        check_optimization(pl.Trainer(accelerator="cpu", logger=False, **option), m)
