"""Training on the device: bfloat16, synchronizations, averages, and runs that resume."""

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from ldm.models.per_sample_rng import BatchIndex
from ldm.modules.ema import EMA
from ldm.training.finite import FiniteLossGuard
from ldm.training.precision import trainer_precision
from ldm.training.seeding import StepSeeding
from tests import shipped, small
from tests.gpu.synchronization import synchronizations
from tests.training.runs import ROOT, only_run, rows, train_here

pytestmark = pytest.mark.gpu

KINDS = [  # one shipped config of each kind
    "celebamask-hq",
    "celebamask-hq-128",
    "celebamask-hq-attention-loss",
    "celebamask-hq-plain-attention",
    "faces-256",
    "synthetic-32",
    "synthetic-64",
]
DROPOUT = {
    "probability_of_discard": 0.3,
    "probability_of_region_discard": 0.3,
    "probability_of_mask_discard": 0.3,
    "probability_of_other_shape": 0.3,
}


def prepared(name: str, device: torch.device) -> tuple[Any, dict[str, Tensor]]:
    """Return the shrunk model of a config in training mode and a batch, both on the device."""
    model = shipped.shrunk(name, **DROPOUT).train().to(device)
    model.log_dict = lambda *a, **k: None
    model.learning_rate = 1e-5
    batch = shipped.batch(model)
    return model, {key: value.to(device) for key, value in batch.items() if torch.is_tensor(value)}


def loss_of(model: Any, batch: dict[str, Tensor], bfloat16: bool, step: int = 0) -> Tensor:
    model.batch_index = BatchIndex(seed=0, batch=step)
    with torch.autocast(next(iter(batch.values())).device.type, torch.bfloat16, enabled=bfloat16):
        return model.training_step(batch, step)


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_loss_and_gradients(name: str, device: torch.device) -> None:
    model, batch = prepared(name, device)
    found = []
    for bfloat16 in (False, True):
        model.zero_grad()
        loss = loss_of(model, batch, bfloat16)
        loss.backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((loss.item(), torch.cat(grads).clone()))
    (loss32, grad32), (loss16, grad16) = found
    assert loss16 == pytest.approx(loss32, rel=0.02)
    assert (grad16 - grad32).norm() < 0.1 * grad32.norm()


@pytest.mark.parametrize("name", KINDS)
def test_a_step_never_synchronizes(name: str, device: torch.device) -> None:
    model, batch = prepared(name, device)
    optimizer = model.configure_optimizers()

    def step(number: int) -> None:
        loss_of(model, batch, True, number).backward()
        optimizer.step()
        optimizer.zero_grad()
        model._emas().update()

    for number in range(2):  # state of the optimizer and counters of the averages
        step(number)
    with synchronizations(device) as found:
        step(2)
    assert found == []


class CountSynchronizations(pl.Callback):
    """Counts those of the steps FIRST to LAST, from the start of a batch to its end."""

    FIRST, LAST = 3, 8  # the guard looks at the losses of steps 0 to 9 at step 9

    def __init__(self, device: torch.device) -> None:
        self.device, self.found, self.steps = device, [], 0

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if self.FIRST <= trainer.global_step <= self.LAST:
            self.context = synchronizations(self.device)
            self.here = self.context.__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if self.FIRST < trainer.global_step <= self.LAST + 1:
            self.context.__exit__(None, None, None)
            self.found += self.here
            self.steps += 1


def test_lightnings_loop_never_synchronizes(device: torch.device, tmp_path: Path) -> None:
    model = shipped.shrunk("faces-256", **DROPOUT)
    model.learning_rate = 1e-5
    batch = shipped.batch(model)
    precision = trainer_precision({"precision": "auto", "accelerator": device.type}, model)
    assert precision in ("bf16-mixed", "32-true")
    counter = CountSynchronizations(device)
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        max_steps=12,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        callbacks=[StepSeeding(0), FiniteLossGuard(10), counter],
    )
    trainer.fit(model, torch.utils.data.DataLoader([batch] * 12, batch_size=None))
    assert trainer.global_step == 12 and counter.steps == 6
    assert counter.found == []


def test_averages(device: torch.device) -> None:
    model = small.sensitive(small.diffusion()).model
    models = model, copy.deepcopy(model).to(device)
    averages = [EMA(each, 0.9) for each in models]
    averages[1].to(device)
    for _ in range(3):
        for each, average in zip(models, averages, strict=True):
            with torch.no_grad():
                for parameter in each.parameters():
                    parameter.mul_(1.5)
            average.update(each)
    expected, found = (average.state_dict() for average in averages)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value, rtol=1e-5, atol=1e-6)
    before = [p.clone() for p in models[1].parameters()]
    with averages[1].applied_to(models[1]):
        assert not torch.equal(next(models[1].parameters()), before[0])
    assert all(torch.equal(p, b) for p, b in zip(models[1].parameters(), before, strict=True))


def test_the_optimizer_inside_the_backward_pass(device: torch.device) -> None:
    weights = []
    for how in ({}, {"step_in_backward": True}):
        model = small.sensitive(small.diffusion(use_ema=False, anneal_steps=0, **how)).train().to(device)
        model.learning_rate, model.log_dict = 1e-4, lambda *a, **k: None
        batch = {k: v.to(device) for k, v in small.batch().items() if torch.is_tensor(v)}
        optimizer = model.configure_optimizers()
        for step in range(3):
            model.batch_index = BatchIndex(seed=0, batch=step)
            optimizer.zero_grad()
            if how:
                optimizer.step(lambda m=model, b=batch: m.training_step(b, 0).backward())
            else:
                model.training_step(batch, 0).backward()
                optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=3e-5)


def test_a_run_resumes(device: torch.device, tmp_path: Path) -> None:
    """A run of 8 steps, and one of 4 that is made longer, have the same losses within rounding."""
    smallest = ROOT / "configs" / "latent-diffusion" / "synthetic-32.yaml"
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    trainer = f"{{accelerator: {accelerator}, devices: 1, val_check_interval: 4, log_every_n_steps: 1}}"
    overrides = [
        "model.params.first_stage_config.params.ckpt_path=null",
        "model.params.unet_config.params.channel_mult=[1, 1]",
        "model.params.anneal_steps=8",
        "data.params={batch_size: 2, num_workers: 0, train: {params: {size: 16}}, "
        "validation: {params: {size: 16, length: 2}}}",
        f"lightning.trainer={trainer}",
        "lightning.trainer.enable_progress_bar=false",
        "lightning.callbacks.image_logger.params.disabled=true",
    ]
    for name, steps in (("whole", 8), ("longer", 4)):
        here = tmp_path / name
        here.mkdir()
        assert train_here(here, *overrides, f"lightning.trainer.max_steps={steps}", base=smallest) == 0
    run = only_run(tmp_path / "longer")
    assert train_here(tmp_path / "longer", "lightning.trainer.max_steps=8", resume=run) == 0
    whole, longer = (rows(tmp_path / name) for name in ("whole", "longer"))
    assert len(whole) == len(longer) == 8
    for a, b in zip(whole, longer, strict=True):
        assert float(b["train/loss"]) == pytest.approx(float(a["train/loss"]), rel=1e-3)
