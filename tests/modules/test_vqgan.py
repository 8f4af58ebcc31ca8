"""Codebook, encoder and decoder, losses, average of weights."""

import pytest
import torch
from torch import nn

from ldm.checkpoints.errors import CheckpointError
from ldm.modules.ema import EMA
from ldm.modules.losses import VQLoss
from ldm.modules.lpips import load_lpips
from ldm.modules.vqgan import Codebook, Decoder, Encoder
from tests.modules.test_lpips import torchvision_file

SIZES = {
    "double_z": False,
    "z_channels": 4,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [16],
    "dropout": 0.0,
}


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_nearest_is_the_exhaustive_search_whatever_the_chunk(chunk: int) -> None:
    torch.manual_seed(0)
    codebook, z = Codebook(50, 3).double(), torch.randn(2, 3, 5, 6, dtype=torch.float64)
    nn.init.normal_(codebook.embedding.weight)
    codebook.CHUNK = chunk
    distances = (z.permute(0, 2, 3, 1)[..., None, :] - codebook.embedding.weight).square().sum(-1)  # B h w K
    assert torch.equal(codebook.nearest(z), distances.argmin(-1))


def test_half_precision_around_the_search_does_not_change_it() -> None:
    torch.manual_seed(0)
    codebook, z = Codebook(2048, 3), torch.randn(1, 3, 32, 32)
    nn.init.normal_(codebook.embedding.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = codebook.nearest(z)
    assert torch.equal(inside, codebook.nearest(z))


def test_quantization_passes_gradients_straight_through_and_pulls_entries() -> None:
    torch.manual_seed(0)
    codebook = Codebook(8, 3, commitment=0.25)
    nn.init.normal_(codebook.embedding.weight)
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    quantized, loss, indices = codebook(z)
    torch.testing.assert_close(quantized, codebook.look_up(indices))
    distance = (codebook.look_up(indices) - z).square().mean()
    assert loss.item() == pytest.approx(1.25 * distance.item())
    (grad,) = torch.autograd.grad(quantized.sum(), z, retain_graph=True)
    assert torch.equal(grad, torch.ones_like(z))
    loss.backward()
    assert codebook.embedding.weight.grad is not None and codebook.embedding.weight.grad[indices].any()


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_encoder_and_decoder_change_the_size_by_four(size: tuple[int, int]) -> None:
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        z = Encoder(**SIZES)(image)
        assert z.shape == (1, 4, size[0] // 4, size[1] // 4)
        assert Decoder(**SIZES)(z).shape == image.shape


def test_attention_stands_where_the_yaml_asks_for_it() -> None:
    levels = Encoder(**SIZES).down
    assert [len(level.attn) for level in levels] == [0, 1, 0]
    assert Encoder(**{**SIZES, "double_z": True}).conv_out.out_channels == 8


def test_ema_follows_its_formula_and_lends_its_weights() -> None:
    module = nn.Linear(2, 1)
    start = module.weight.detach().clone()
    ema = EMA(module, decay=0.9)
    with torch.no_grad():
        module.weight += 1
    ema.update(module)  # decay min(0.9, 2 / 11)
    expected = 2 / 11 * start + 9 / 11 * (start + 1)
    torch.testing.assert_close(ema.weight, expected)
    with ema.applied_to(module):
        torch.testing.assert_close(module.weight.detach(), expected)
    torch.testing.assert_close(module.weight.detach(), start + 1)
    for _ in range(200):
        ema.update(module)
    torch.testing.assert_close(ema.weight, start + 1, rtol=1e-5, atol=1e-5)
    assert int(ema.num_updates) == 201


def test_vq_loss_is_l1_and_codebook_until_the_discriminator_joins() -> None:
    torch.manual_seed(0)
    loss = VQLoss(codebook_weight=2.0, disc_weight=0.5, disc_start=10, disc_channels=8)
    image = torch.randn(2, 3, 32, 32)
    last = nn.Conv2d(3, 3, 1)
    made, codebook = last(image), torch.tensor(0.3)
    early, log = loss(codebook, image, made, 0, 9, last_layer=last.weight)
    assert early.item() == pytest.approx(((image - made).abs().mean() + 0.6).item())
    assert "train/g_loss" not in log
    late, log = loss(codebook, image, made, 0, 10, last_layer=last.weight, split="val")
    expected = early + 0.5 * log["val/d_weight"] * log["val/g_loss"]
    assert late.item() == pytest.approx(expected.item(), rel=1e-5)
    rec, g = (
        torch.autograd.grad(x, last.weight, retain_graph=True)[0].norm()
        for x in ((image - made).abs().mean(), -loss.discriminator(made).mean())
    )
    assert log["val/d_weight"].item() == pytest.approx((rec / (g + 1e-4)).item(), rel=0.05)


def test_squared_error_beside_l1() -> None:
    image, made, codebook = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5), torch.tensor(0.1)
    value, log = VQLoss(l2_weight=2.0)(codebook, image, made, 0, 0)
    assert value.item() == pytest.approx(0.5 + 2 * 0.25 + 0.1)
    assert log["train/rec_loss"].item() == pytest.approx(0.5)


def test_the_balance_is_with_all_of_the_reconstruction_loss() -> None:
    torch.manual_seed(0)
    loss = VQLoss(disc_weight=1.0, disc_channels=8, l2_weight=5.0)
    image, last = torch.randn(2, 3, 32, 32), nn.Conv2d(3, 3, 1)
    made = last(image)
    _, log = loss(torch.tensor(0.3), image, made, 0, 0, last_layer=last.weight)
    difference = image - made
    rec, g = (
        torch.autograd.grad(x, last.weight, retain_graph=True)[0].norm()
        for x in (difference.abs().mean() + 5 * difference.square().mean(), -loss.discriminator(made).mean())
    )
    assert log["train/d_weight"].item() == pytest.approx((rec / (g + 1e-4)).item(), rel=1e-4)


def test_hinge_loss_of_the_discriminator() -> None:
    loss = VQLoss(disc_weight=1.0, disc_start=5)
    loss.discriminator = nn.Identity()  # an image is its own logit
    real, made = torch.full((1, 3, 4, 4), 0.25), torch.full((1, 3, 4, 4), -0.5)
    value, _ = loss(torch.tensor(0.0), real, made, 1, 5)
    assert value.item() == pytest.approx(0.5 * (0.75 + 0.5))
    assert loss(torch.tensor(0.0), real, made, 1, 4)[0].item() == 0
    with pytest.raises(ValueError, match="disc_weight is 0"):
        VQLoss()(torch.tensor(0.0), real, made, 1, 0)


def test_perplexity_counts_the_entries_that_are_used_alike() -> None:
    codebook = Codebook(8, 3)
    share, perplexity = codebook.use(torch.tensor([[[0, 0, 5, 5], [2, 2, 7, 7]]]))
    assert share.item() == 0.5 and perplexity.item() == pytest.approx(4)
    assert codebook.use(torch.zeros(1, 2, 2, dtype=torch.long))[1].item() == pytest.approx(1)


def test_lpips_joins_the_loss_where_its_file_is_named(tmp_path) -> None:
    loss = VQLoss(perceptual_network=str(torchvision_file("alex", tmp_path)), perceptual_weight=3.0)
    assert not loss.state_dict() and not list(loss.parameters())  # neither stored nor trained
    image, codebook = torch.rand(2, 3, 64, 64) * 2 - 1, torch.tensor(0.1)
    made = torch.rand_like(image).requires_grad_()
    value, log = loss(codebook, image, made, 0, 0)
    expected = load_lpips(tmp_path / "alex.pth")(made, image).mean()
    assert log["train/p_loss"].item() == pytest.approx(expected.item())
    assert value.item() == pytest.approx((log["train/rec_loss"] + 3 * expected + 0.1).item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, made)
    assert gradient.abs().max() > 2 / made.numel()  # of L1 alone it is 1 / numel everywhere


def test_a_perceptual_network_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"vgg16\.pth"):
        VQLoss(perceptual_network=str(tmp_path / "vgg16.pth"))
