"""A training step never waits for the device: nothing reads a tensor's values on the host."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ldm.models.per_sample_rng import BatchIndex
from tests import shipped, small

READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}


class NoReads(TorchDispatchMode):
    """Refuses operations that wait for the device, such as those of `item()`, `bool()` and `nonzero()`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in READS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


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
    model.log_dict = lambda *a, **k: None
    train(model, batch, optimizer, 0)  # the EMAs read their counters once after loading
    with NoReads():
        train(model, batch, optimizer, 1)
    assert int(model.model_ema.num_updates) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_step_on_cuda_never_synchronizes() -> None:
    model = shipped.shrunk("faces-256", **DROPOUT).train().cuda()
    batch = {k: v.cuda() for k, v in shipped.batch(model).items() if torch.is_tensor(v)}
    optimizer = model.configure_optimizers()
    model.log_dict = lambda *a, **k: None
    for step in range(2):
        train(model, batch, optimizer, step)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(model, batch, optimizer, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
