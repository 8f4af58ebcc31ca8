"""Training under bfloat16 autocast: the networks compute in bfloat16, everything between them in float32."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from ldm.models.per_sample_rng import BatchIndex
from ldm.modules.efficientnet import PerceptualDistance
from ldm.modules.losses import VQLoss
from ldm.modules.lpips import LPIPS
from tests import shipped, small


class Step(NamedTuple):
    """Results of one training step."""

    loss: Tensor
    gradients: dict[str, Tensor]


def step(model: Any, batch: dict[str, Any], bfloat16: bool) -> Step:
    """Run a training step; two optimizers, of a model with a discriminator, get a learning rate of 0."""
    model.log = model.log_dict = lambda *a, **k: None
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.0)] * 2
    model.optimizers, model.manual_backward = lambda: optimizers, lambda loss: loss.backward()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = model.train().training_step(batch, 0)
    if model.automatic_optimization:
        loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return Step(loss.detach(), gradients)


def assert_equal_within_rounding(half: Step, whole: Step, *, gradients: float) -> None:
    """Compare the loss, and all gradients as one vector, by their relative errors."""
    assert half.loss.dtype == torch.float32
    assert half.loss.item() == pytest.approx(whole.loss.item(), rel=0.02)
    assert half.gradients.keys() == whole.gradients.keys()
    a, b = (torch.cat([g.flatten() for g in each.gradients.values()]) for each in (half, whole))
    assert (a - b).norm() < gradients * b.norm()


def between_networks(model: Any, found: dict[str, Tensor]) -> None:
    """Record xt, the UNet's input, and the target, which contains the noise."""
    denoise, loss = model.unet.denoise, model.loss.forward

    def recording_denoise(x: Tensor, *others: Any) -> Tensor:
        found["xt"] = x
        return denoise(x, *others)

    def recording_loss(out: Tensor, target: Tensor, *others: Any) -> Any:
        found["target"] = target
        assert out.dtype == torch.float32
        return loss(out, target, *others)

    model.batch_index = BatchIndex(seed=0, batch=3)
    model.unet.denoise, model.loss.forward = recording_denoise, recording_loss


@pytest.mark.parametrize("name", shipped.NAMES)
def test_diffusion_in_bfloat16_has_the_same_noise_and_the_same_gradients_within_rounding(name: str) -> None:
    model = shipped.shrunk(name)
    batch = shipped.batch(model)
    half_model = copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16):
        half_z = model.encode_first_stage(batch["image"])
    z = model.encode_first_stage(batch["image"])
    assert half_z.dtype == torch.float32
    assert (half_z - z).norm() < 0.02 * z.norm()
    batch["latent"] = z / model.scale_factor
    recorded: dict[bool, dict[str, Tensor]] = {False: {}, True: {}}
    between_networks(model, recorded[False])
    between_networks(half_model, recorded[True])
    whole, half = step(model, batch, bfloat16=False), step(half_model, batch, bfloat16=True)
    for key in ("xt", "target"):  # float32 between the networks: not rounded at all
        assert recorded[True][key].dtype == torch.float32
        assert torch.equal(recorded[True][key], recorded[False][key])
    assert_equal_within_rounding(half, whole, gradients=0.06)


@pytest.mark.parametrize("file", sorted(shipped.AUTOENCODERS.glob("*.yaml")), ids=lambda file: file.stem)
def test_autoencoders_in_bfloat16_have_the_same_gradients_within_rounding(file: Path) -> None:
    torch.manual_seed(0)
    model = small.randomized(shipped.shrunk_autoencoder(file))
    half_model = copy.deepcopy(model)
    reconstructions: list[Tensor] = []
    half_model.loss.register_forward_pre_hook(lambda _, inputs: reconstructions.append(inputs[2]))
    batch = small.batch(2, 64)
    whole, half = step(model, batch, bfloat16=False), step(half_model, batch, bfloat16=True)
    assert reconstructions[0].dtype == torch.float32
    assert_equal_within_rounding(half, whole, gradients=0.06)


@pytest.mark.parametrize("optimizer", [0, 1])
def test_the_adversarial_loss_is_computed_in_float32(optimizer: int) -> None:
    # Its gradients cannot be compared: through an untrained discriminator, rounded images alone change them by 20 %.
    torch.manual_seed(0)
    loss = VQLoss(disc_weight=0.75, disc_channels=8)
    image, reconstruction = (small.batch(2, 64, seed)["image"] for seed in (1, 2))
    whole, _ = loss(torch.tensor(0.0), image, reconstruction, optimizer, 0)
    with torch.autocast("cpu", torch.bfloat16):
        half, log = loss(torch.tensor(0.0), image, reconstruction, optimizer, 0)
    assert {value.dtype for value in [half, *log.values()]} == {torch.float32}
    assert half.item() == pytest.approx(whole.item(), rel=2e-3)


@pytest.mark.parametrize("kind", ["efficientnet", "lpips"])
def test_perceptual_distances_are_computed_in_float32(kind: str) -> None:
    torch.manual_seed(0)
    network: Any = PerceptualDistance() if kind == "efficientnet" else small.randomized(LPIPS("alex"))
    image = small.batch(2, 64)["image"]
    near = image + 0.2 * torch.randn(image.shape)
    whole = network(near, image).mean()
    with torch.autocast("cpu", torch.bfloat16):
        half = network(near, image).mean()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(whole.item(), rel=1e-2)


@pytest.mark.parametrize("file", sorted(shipped.PARSERS.glob("*.yaml")), ids=lambda file: file.stem)
def test_face_parsers_in_bfloat16_have_the_same_gradients_within_rounding(file: Path) -> None:
    torch.manual_seed(0)
    model = shipped.shrunk_parser(file)
    half_model = copy.deepcopy(model)
    batch = small.batch(2, 64)
    whole, half = step(model, batch, bfloat16=False), step(half_model, batch, bfloat16=True)
    assert_equal_within_rounding(half, whole, gradients=0.06)
