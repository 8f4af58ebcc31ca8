"""LatentDiffusion beyond the golden cases: dropout of styles, EMA, validation, pictures, settings."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from ldm.data.labels import one_hot
from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.models.conditioning_dropout import StyleDropout
from ldm.targets import ConfigError, instantiate_from_config
from tests import small


def model(**params):
    return small.sensitive(small.diffusion(**params))


def test_style_dropout_empties_the_style_of_a_share_of_the_images_and_nothing_else() -> None:
    m, batch = model(), small.batch(64)
    y = one_hot(batch["labels"], 19)
    with torch.no_grad():
        full = m.get_learned_conditioning(batch["image"], y)
        empty = m.get_learned_conditioning(torch.zeros_like(batch["image"]), y)
        torch.manual_seed(3)
        mixed = m.conditions(batch, StyleDropout(image=0.3))
    dropped = (mixed["context"] - empty).abs().amax((1, 2)) < 1e-6
    assert torch.equal(mixed["y"], y)
    assert 10 <= dropped.sum() <= 28
    torch.testing.assert_close(mixed["context"][~dropped], full[~dropped])
    with torch.no_grad():
        torch.testing.assert_close(m.conditions(batch)["context"], full)


def test_training_sees_the_empty_style_only_as_often_as_asked() -> None:
    seen: list[torch.Tensor] = []
    for share in (0.0, 1.0):
        m, batch = model(probability_of_discard=share).train(), small.batch(4)
        m.log_dict = lambda *a, **k: None
        m.cond_stage_model.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].abs().amax())
        )
        m.training_step(batch, 0)
    assert seen[0] > 0 and seen[1] == 0


def test_the_loss_is_that_of_the_noised_latent() -> None:
    m, batch = model(), small.batch(2)
    with torch.no_grad():
        z = m.encode_first_stage(batch["image"])
        cond, t, noise = m.conditions(batch), torch.tensor([10, 900]), torch.randn_like(z)
        a = m.schedule.alpha_bar[t].float()[:, None, None, None]
        expected = (m.apply_model(a.sqrt() * z + (1 - a).sqrt() * noise, t, cond) - noise).square().mean()
        loss, log = m.p_losses(z, cond, t, noise)
    torch.testing.assert_close(loss, expected)
    assert log.keys() == {"val/loss_simple", "val/loss"}


def test_v_is_another_name_for_the_same_noise() -> None:
    m, batch = model(parameterization="v"), small.batch(2)
    with torch.no_grad():
        z = m.encode_first_stage(batch["image"])
        cond, t, noise = m.conditions(batch), torch.tensor([10, 900]), torch.randn_like(z)
        a = m.schedule.alpha_bar[t].float()[:, None, None, None]
        xt = a.sqrt() * z + (1 - a).sqrt() * noise
        v = m.unet(xt, t, cond["context"], cond["y"])
        expected = (v - (a.sqrt() * noise - (1 - a).sqrt() * z)).square().mean()
        torch.testing.assert_close(m.p_losses(z, cond, t, noise)[0], expected)
        m.unet.denoise = lambda x, t, prepared, logits=None: (
            a.sqrt() * noise - (1 - a).sqrt() * z
        )  # the perfect answer
        torch.testing.assert_close(m.apply_model(xt, t, cond), noise, rtol=1e-4, atol=1e-5)


def test_validation_repeats_itself_and_uses_the_average() -> None:
    m, batch, logs = model(), small.batch(4), []
    with torch.no_grad():
        for parameter in m.model.parameters():
            parameter += 0.05
    m.log_dict = lambda log, **k: logs.append(log)
    torch.manual_seed(5)
    m.validation_step(batch, 0)
    m.validation_step(batch, 0)
    assert logs[0] == logs[1]
    assert logs[0]["val/loss_simple"] != logs[0]["val/loss_simple_ema"]
    with m.ema_scope():
        m.validation_step(batch, 0)
    assert logs[2]["val/loss_simple"] == logs[0]["val/loss_simple_ema"]


def test_prepared_conditions_predict_the_same() -> None:
    m, batch = model(), small.batch(2)
    with torch.no_grad():
        cond = m.conditions(batch)
        x, t = torch.randn(2, 3, 4, 4), torch.tensor([5, 700])
        assert torch.equal(m.apply_model(x, t, m.prepare(cond, (4, 4))), m.apply_model(x, t, cond))


def test_the_picture_of_a_seed_does_not_depend_on_its_batch() -> None:
    m, batch = model(), small.batch(3)
    with torch.no_grad():
        cond = m.conditions(batch)
        together = m.sample_images(cond, (4, 4), [1, 2, 3], steps=3, eta=1.0)
        alone = m.sample_images({k: v[1:2] for k, v in cond.items()}, (4, 4), [2], steps=3, eta=1.0)
    torch.testing.assert_close(alone[0], together[1], atol=1e-4, rtol=1e-4)


def test_picture_columns() -> None:
    columns = model(sample_steps=10).log_images(small.batch(3), 3)
    assert list(columns) == ["input", "reconstruction", "its own style", "no style", "neighbor's style"]
    assert {tuple(images.shape) for images in columns.values()} == {(3, 3, 16, 16)}
    assert all(images.abs().max() <= 1 for images in columns.values())
    assert not torch.equal(columns["its own style"], columns["neighbor's style"])


def test_the_first_stage_is_frozen_in_every_mode() -> None:
    m = model().train()
    assert not m.first_stage_model.training and m.unet.training
    assert not any(p.requires_grad for p in m.first_stage_model.parameters())
    optimizer = m.configure_optimizers()
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {
        id(p) for part in (m.model, m.cond_stage_model) for p in part.parameters() if p.requires_grad
    }


def test_everything_that_is_trained_gets_a_gradient() -> None:
    m, batch = model().train(), small.batch(4)
    m.log_dict = lambda *a, **k: None
    m.training_step(batch, 0).backward()
    trained = {name: p for name, p in m.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert not any("label_emb" in name or "attn2.to_q" in name for name in trained)


def test_a_trained_model_can_be_tested(tmp_path) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    (scores,) = trainer.test(model(), DataLoader(SyntheticFaces(16, 4), batch_size=4), verbose=False)
    assert scores.keys() == {"test/loss", "test/loss_simple", "test/loss_ema", "test/loss_simple_ema"}


@pytest.mark.parametrize(
    ("unet", "style_encoder", "message"),
    [
        ({"context_dim": 16}, {}, "codes of size 8"),
        ({"style_grid": 2}, {"grid": 1}, "style grid of 1x1 cells"),
        (
            {"style_grid": 2, "context_dim": 32, "region_frames": {13: 1}},
            {"grid": 2},
            r"region frames {}, but unet_config.params.region_frames is {13: 1}",
        ),
    ],
)
def test_codes_that_the_unet_cannot_read_are_refused_at_once(unet, style_encoder, message) -> None:
    config = copy.deepcopy(small.diffusion())
    config["params"]["unet_config"]["params"] |= unet
    if style_encoder:
        config["params"]["cond_stage_config"] = {
            "target": "ldm.modules.moment_style_encoder.MomentStyleEncoder",
            "params": {"num_mask_channels": 19, "output_dim": 8, **style_encoder},
        }
    with pytest.raises(ValueError, match=message):
        instantiate_from_config(config)


def test_the_latents_scale_is_measured_once_and_kept(tmp_path) -> None:
    m = model(scale_by_std=True, scale_factor=1)
    before = m.encode_first_stage(small.batch(4, seed=0)["image"]).std()
    assert not torch.isclose(before, torch.tensor(1.0), rtol=0.05)
    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    trainer = pl.Trainer(max_steps=2, default_root_dir=tmp_path, enable_model_summary=False, **options)
    trainer.fit(m, DataLoader(SyntheticFaces(16, 8), batch_size=4))
    first = torch.stack([SyntheticFaces(16, 4)[i]["image"] for i in range(4)])
    assert m.encode_first_stage(first).std().item() == pytest.approx(1.0, rel=1e-4)
    assert "scale_factor" in m.state_dict() and "scale_factor" not in model().state_dict()


def test_annealing_rises_then_falls_to_zero() -> None:
    m = model(anneal_steps=200)
    m.learning_rate = 0.1
    made = m.configure_optimizers()
    rates = []
    for _ in range(201):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates[0] == pytest.approx(0.1 / 50)
    assert max(rates) == pytest.approx(0.1, rel=0.2) and rates.index(max(rates)) == 49
    assert rates[100] == pytest.approx(0.05) and rates[200] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"conditioning_key": "concat"}, "must be 'crossattn', got 'concat'"),
        ({"parameterization": "x0"}, "must be 'eps' or 'v', got 'x0'"),
        ({"num_timesteps_cond": 2}, "num_timesteps_cond must be 1, got 2"),
        ({"probability_of_discard": 1.5}, r"must be in \[0, 1\], got 1.5"),
        ({"attn_loss_weight": 0.1}, "use_mask_attn computes no attention logits"),
    ],
)
def test_settings_that_do_not_exist(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**params)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'probability_of_discard'"):
        model(probability_of_discards=0.1)


def test_a_setting_without_effect_warns() -> None:
    with pytest.warns(UserWarning, match="attn_l2 has no effect"):
        model(attn_l2=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ignore_keys": ["cond_stage_model.*"]}, "ignore_keys has no effect without ckpt_path"),
        ({"use_ema": False, "ema_style_encoder": True}, "ema_style_encoder has no effect while use_ema"),
        ({"unet": {"attention_resolutions": [2, 3]}}, "attention_resolutions has 3, but .* 1, 2; other"),
        ({"image_size": 8}, "image_size is 8, but unet_config.params.image_size is 4"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_settings_without_effect_warn(settings: dict, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        model(**settings)


def test_channels_are_those_of_the_unet() -> None:
    with pytest.raises(ValueError, match=r"channels is 4, but unet_config.params.in_channels is 3"):
        model(channels=4)
