"""The start of small first stages as color means."""

import pytest
import torch
import torch.nn.functional as F

from ldm.checkpoints.io import write_checkpoint
from ldm.models.autoencoder_init import whiten
from ldm.targets import instantiate_from_config
from tests import small

DDCONFIG = {**small.DDCONFIG, "ch": 8, "ch_mult": [1, 2, 4], "norm_groups": 0, "attn_resolutions": [4]}


def model(ddconfig=DDCONFIG, **params):
    torch.manual_seed(0)
    return instantiate_from_config(small.first_stage(ddconfig=ddconfig, start_from_means=True, **params))


def test_it_begins_as_the_mean_color_of_each_place() -> None:
    m, image = model(), torch.rand(2, 3, 16, 24) * 2 - 1
    features = m.encoder(image)
    means = F.avg_pool2d(image, 4)
    # The other channels add a little from the start, which gives them a gradient.
    assert (features - means).abs().mean() < 0.2 * means.abs().mean()
    flat = torch.full((1, 3, 16, 16), 0.3) * torch.tensor([1.0, -1.0, 0.5])[:, None, None]
    with torch.no_grad():
        for half in (m.encoder, m.decoder):
            half.conv_out.weight[:, 6:] = 0
    torch.testing.assert_close(m.encoder(image), means)
    decoded = m.decoder(m.encoder(flat))
    torch.testing.assert_close(decoded[..., 4:12, 4:12], flat[..., 4:12, 4:12])


def test_the_first_batch_gives_latents_of_unit_covariance_and_back() -> None:
    m, image = model(), small.batch(8)["image"]
    features = m.encoder(image)
    whiten(m.quant_conv, m.post_quant_conv, features)
    z = m.encode(image)
    torch.testing.assert_close(z.transpose(0, 1).flatten(1).cov(), torch.eye(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(m.post_quant_conv(z), features, atol=1e-4, rtol=1e-4)


def test_training_whitens_once_and_not_what_was_loaded() -> None:
    m, batch = model(codebook_reset_after=5), small.batch(4)
    m.log = m.log_dict = lambda *args, **kwargs: None
    m.train().training_step(batch, 0)
    once = m.quant_conv.weight.detach().clone()
    assert abs(m.encode(batch["image"]).var() - 1) < 0.2
    m.training_step(small.batch(4, seed=9), 1)
    assert torch.equal(m.quant_conv.weight, once)


def test_loaded_weights_win(tmp_path) -> None:
    trained = model()
    with torch.no_grad():
        trained.quant_conv.weight.normal_()
    file = write_checkpoint(tmp_path / "first.safetensors", trained.state_dict())
    m = model(ckpt_path=str(file))
    m.log = m.log_dict = lambda *args, **kwargs: None
    m.train().training_step(small.batch(4), 0)
    assert torch.equal(m.quant_conv.weight, trained.quant_conv.weight)


@pytest.mark.parametrize(
    "change, message",
    [({"norm_groups": 4}, "norm_groups: 0"), ({"ch": 4}, "6 channels"), ({"z_channels": 4}, "z_channels: 3")],
)
def test_networks_that_cannot_carry_colors_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        model({**DDCONFIG, **change})
