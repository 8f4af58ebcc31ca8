"""The networks compute on the device what they compute on the CPU: recorded cases, and every shipped config."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.sampling import guide, sample
from tests import shipped
from tests.golden import SAMPLED, assert_close, build, mask_of, read

pytestmark = pytest.mark.gpu

BFLOAT16 = 0.06  # of the norm; 8 bits of mantissa round by 0.004, in every layer again
FLOAT32 = 2e-3  # of the norm, between the shrunk configs' networks with random weights


def on(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def error(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected|."""
    expected = expected.to(found.device)
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", ["unet_mask", "unet_plain", "unet_zero_mask"])
def test_recorded_unet(name: str, device: torch.device) -> None:
    case, tensors = read(name)
    model, tensors = build(case).to(device), on(device, tensors)
    inputs = tensors["x"], tensors["t"]
    how = {"context": tensors["context"], "y": mask_of(tensors)}
    with torch.no_grad():
        assert_close(model(*inputs, **how), tensors["out"])
        with torch.autocast(device.type, torch.bfloat16):
            half = model(*inputs, **how).float()
    assert error(half, tensors["out"]) < BFLOAT16


def test_recorded_style_encoder(device: torch.device) -> None:
    case, tensors = read("style_encoder")
    encoder, tensors = build(case).to(device), on(device, tensors)
    with torch.no_grad():
        assert_close(encoder(tensors["image"], mask_of(tensors)), tensors["out"])


def test_recorded_first_stage(device: torch.device) -> None:
    case, tensors = read("vq")
    first_stage, tensors = build(case).to(device), on(device, tensors)
    with torch.no_grad():
        assert_close(first_stage.encode(tensors["image"]), tensors["encoded"])
        indices = first_stage.quantize.nearest(tensors["encoded"])
        assert (indices == tensors["indices"]).float().mean() > 0.99
        decoded = first_stage.decode(tensors["encoded"], force_not_quantize=True)
        assert_close(decoded, tensors["decoded_not_quantized"])


@pytest.mark.parametrize("name", ["ddim_10", "ddim_10_cfg2"])
def test_recorded_sampling(name: str, device: torch.device) -> None:
    case, tensors = read(name)
    model, tensors = build(case).to(device), on(device, tensors)
    y, style = mask_of(tensors), tensors["context"]
    with torch.no_grad():
        assert_close(model.get_learned_conditioning(tensors["image"], y), style)
        cond, null = {"context": style, "y": y}, {"context": 0 * style, "y": 0 * y}
        predict = guide(model.apply_model, cond, null, case["scale"])
        z = sample(predict, tensors["x_T"], model.schedule, steps=case["steps"], solver="ddim")
    assert_close(z, tensors["out"], SAMPLED)


@pytest.mark.parametrize("name", ["loss", "loss_attn_bce", "loss_attn_l2"])
def test_recorded_loss_and_gradients(name: str, device: torch.device) -> None:
    case, tensors = read(name)
    model, tensors = build(case).train().to(device), on(device, tensors)
    y = mask_of(tensors)
    style = model.get_learned_conditioning(tensors["image"], y)
    cond = {"context": style, "y": y}
    loss, _ = model.p_losses(tensors["z"], cond, tensors["t"], noise=tensors["noise"])
    loss.backward()
    assert loss.item() == pytest.approx(case["total"], rel=1e-4)
    parameters, largest = dict(model.named_parameters()), max(case["grad_norms"].values())
    for key, expected in case["grad_norms"].items():
        grad = parameters[key].grad
        norm = 0.0 if grad is None else grad.norm().item()
        assert norm == pytest.approx(expected, rel=5e-3, abs=1e-6 * largest), key


@pytest.mark.parametrize("name", shipped.NAMES)
def test_shipped_configs(name: str, device: torch.device) -> None:
    """Each network in float32 and the UNet also in bfloat16, against float32 on the CPU."""
    model = shipped.shrunk(name).eval()
    batch = shipped.batch(model)
    z = torch.randn(2, model.channels, model.image_size, model.image_size, generator=torch.manual_seed(0))
    t = torch.tensor([417, 80])
    expected = run(model, batch, z, t)
    found = run(copy.deepcopy(model).to(device), on(device, tensors_of(batch)), z.to(device), t.to(device))
    for part, value in expected.items():
        assert error(found[part], value) < FLOAT32, part
    with torch.autocast(device.type, torch.bfloat16):
        half = run(model.to(device), on(device, tensors_of(batch)), z.to(device), t.to(device))
    assert half["noise"].dtype == torch.float32
    assert error(half["noise"], expected["noise"]) < BFLOAT16


def tensors_of(batch: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if torch.is_tensor(value)}


@torch.no_grad()
def run(model: Any, batch: dict[str, Any], z: Tensor, t: Tensor) -> dict[str, Tensor]:
    """Return the outputs of every network; the decoder's without quantization, which jumps."""
    cond = model.conditions(batch)
    return {
        "style": cond["context"],
        "noise": model.apply_model(z, t, cond),
        "latent": model.encode_first_stage(batch["image"]),
        "image": model.decode_first_stage(z, force_not_quantize=True),
    }
