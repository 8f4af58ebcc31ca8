"""Training under bfloat16 autocast: the networks compute in bfloat16, everything between them in float32."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.models.per_sample_rng import BatchIndex
from tests import shipped


def step(model: Any, batch: dict[str, Any], bfloat16: bool) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """Return the loss of a training step, the gradients, and the UNet's floating-point inputs."""
    inputs: list[Tensor] = []
    eager = model.unet.denoise

    def recording(x: Tensor, *others: Any) -> Tensor:
        inputs.append(x)
        return eager(x, *others)

    model.batch_index, model.unet.denoise = BatchIndex(seed=0, batch=3), recording
    model.log_dict = lambda *a, **k: None
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = model.train().training_step(batch, 0)
    loss.backward()
    model.unet.denoise = eager
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, inputs


@pytest.mark.parametrize("name", shipped.NAMES)
def test_loss_and_gradients_in_bfloat16_are_those_of_float32_within_rounding(name: str) -> None:
    model = shipped.shrunk(name)
    batch = shipped.batch(model)
    loss, gradients, (xt,) = step(model, batch, bfloat16=False)
    half_loss, half_gradients, (half_xt,) = step(model, batch, bfloat16=True)
    assert half_loss.dtype == half_xt.dtype == torch.float32
    # The first stage rounds its latents; noise and mixing do not round them again.
    assert (half_xt - xt).norm() < 0.02 * xt.norm()
    assert half_loss.item() == pytest.approx(loss.item(), rel=0.02)
    assert half_gradients.keys() == gradients.keys()
    whole, half = (torch.cat([g.flatten() for g in each.values()]) for each in (gradients, half_gradients))
    assert (half - whole).norm() < 0.06 * whole.norm()
