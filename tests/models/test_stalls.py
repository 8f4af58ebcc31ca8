"""Steps of training and sampling never wait for the device: nothing reads a tensor's values on the host."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ldm.models.per_sample_rng import BatchIndex
from ldm.pipeline.image_sampler import ImageSampler, SamplingInputs
from ldm.pipeline.pretrained import label_set_of
from ldm.sampling.solvers import SOLVERS
from tests import shipped, small, steps
from tests.host_reads import NoReads, OnDevice, on_device


def train(model: Any, batch: dict[str, Any], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Take one training step, as Lightning does, without its loop."""
    model.batch_index = BatchIndex(seed=0, batch=step)
    model.training_step(batch, step).backward()
    optimizer.step()
    optimizer.zero_grad()
    model._emas().update()


DROPOUT = {
    "probability_of_discard": 0.5,
    "probability_of_region_discard": 0.5,
    "probability_of_mask_discard": 0.5,
    "probability_of_other_shape": 0.5,
}


@pytest.mark.parametrize(
    "name", ["celebamask-hq", "celebamask-hq-attention-loss", "faces-256", "synthetic-64"]
)
def test_a_training_step_reads_no_values(name: str) -> None:
    model = shipped.shrunk(name, **DROPOUT).train()
    batch, optimizer = shipped.batch(model), model.configure_optimizers()
    model.log_dict = steps.log_dict
    train(model, batch, optimizer, 0)  # the EMAs read their counters once after loading
    with NoReads():
        train(model, on_device(batch), optimizer, 1)
    assert int(model.model_ema.num_updates) == 2


READERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).any()),
    "selection": lambda x: x[x > 0],
    "assignment": lambda x: x.__setitem__(x > 0, 0),
    "assignment of bytes": lambda x: x.index_put_([(x > 0).byte()], x[0]),
    "masked_select": lambda x: x.masked_select(x > 0),
    "nonzero": lambda x: x.nonzero(),
    "bincount": lambda x: x.long().bincount(),
    "unique": lambda x: x.unique(),
    "unique rows": lambda x: x[:, None].unique(dim=0),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "tolist": lambda x: (x + 1).tolist(),
    "cpu": lambda x: x.mean().cpu(),
    "numpy": lambda x: x.numpy(),
}


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8")
@pytest.mark.parametrize("name", READERS)
def test_reads_are_refused(name: str) -> None:
    x = torch.arange(4.0).as_subclass(OnDevice)
    with pytest.raises(AssertionError, match="waits for the device"), NoReads():
        READERS[name](x)


def test_operations_of_fixed_size_are_not_refused() -> None:
    x = torch.arange(4.0).as_subclass(OnDevice)
    with NoReads():
        x[torch.tensor([0, 1])] += x[:2].repeat_interleave(2)[::2]
        x[1:] = torch.where(x > 0, x, 0.0)[1:]
        x.masked_fill_(x > 2, 0)
    assert x.tolist.__self__ is x and torch.Tensor.sum(x).as_subclass(torch.Tensor) == 4


CPU = torch.device("cpu")


@pytest.mark.parametrize("adversarial", [False, True])
def test_a_step_of_the_first_stage_reads_no_values(adversarial: bool) -> None:
    model, batch = steps.first_stage(CPU, adversarial)
    with NoReads():
        for number in range(4):  # codes that none of the last two batches has used are reset
            steps.training_step(model, on_device(batch), number)


def test_a_step_of_the_parser_reads_no_values() -> None:
    model, batch = steps.parser(CPU)
    with NoReads():
        steps.training_step(model, on_device(batch), 0)


def test_jpeg_compression_reads_a_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = steps.parser(CPU, jpeg=1.0)
    copied: list[tuple[int, ...]] = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: copied.append(tuple(x.shape)) or x)
    with NoReads():
        steps.training_step(model, batch, 0)
    assert copied == [(2, 64, 64, 3)]


def test_validation_of_the_parser_reads_no_values() -> None:
    model, batch = steps.parser(CPU)
    model.log = steps.log
    model.eval().on_validation_epoch_start()
    with torch.no_grad(), NoReads():
        model.validation_step(on_device(batch), 0)
    assert int(model.seen.sum()) == batch["labels"].numel()


@pytest.mark.parametrize("solver", SOLVERS)
def test_sampling_steps_read_no_values(solver: str) -> None:
    run, noise = steps.sampling(CPU, solver)
    with torch.no_grad(), NoReads():
        found = run(noise.as_subclass(OnDevice))
    assert torch.Tensor.isfinite(found.as_subclass(torch.Tensor)).all()


def test_masks_of_labels_are_not_looked_at() -> None:
    model, batch = small.sensitive(small.diffusion()), small.batch(2)
    sampler = ImageSampler(model, label_set_of({}, model), torch.float32)
    codes = torch.zeros(2, model.num_regions, model.unet.context_dim)
    cond = sampler.condition(SamplingInputs(batch["labels"], codes))
    with torch.no_grad(), NoReads():
        model.prepare(cond, (4, 4))


def test_labels_are_checked_on_the_host_before_their_transfer() -> None:
    model, batch = small.sensitive(small.diffusion()), small.batch(2)
    assert model.on_before_batch_transfer(batch, 0) is batch
    batch["labels"] = batch["labels"].clone()
    batch["labels"][1, 2, 3] = 19
    with pytest.raises(ValueError, match=r"\[0, 18\].*\[19\]"):
        model.on_before_batch_transfer(batch, 0)


@pytest.mark.parametrize("name", ["celebamask-hq", "faces-256"])
def test_one_empty_image_has_the_codes_of_a_batch_of_them(name: str) -> None:
    model = shipped.shrunk(name)
    batch = shipped.batch(model, 3)
    y = model.conditions(batch)["y"]
    empty = torch.zeros_like(batch["image"])
    with torch.no_grad():
        many, one = (model.get_learned_conditioning(image, y) for image in (empty, empty[:1]))
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


def test_a_loaded_average_counts_on_from_its_checkpoint() -> None:
    model, other = (small.sensitive(small.diffusion(ema_decay=0.5)) for _ in range(2))
    for _ in range(3):
        model._emas().update()
    other._emas().update()
    other.load_state_dict(model.state_dict())
    for each in (model, other):
        with torch.no_grad():
            for parameter in each.model.parameters():
                parameter += 1
        each._emas().update()
    assert int(other.model_ema.num_updates) == 4
    for name, value in model.model_ema.state_dict().items():
        assert torch.equal(value, other.model_ema.state_dict()[name])
