"""The parts of the training recipe that the published one lacks, each against its definition."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from ldm.checkpoints.io import build_model, read_checkpoint, write_checkpoint
from ldm.data.labels import one_hot
from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.models.conditioning_dropout import StyleDropout
from ldm.models.denoising_loss import min_snr_weights
from ldm.models.optimizers import OptimizerSettings
from ldm.pipeline import FacePipeline
from ldm.pipeline.style_code import load_style
from ldm.sampling import NoiseSchedule, sample
from ldm.targets import instantiate_from_config
from tests import small

B, R, D = 200, 4, 3


def dropped(dropout: StyleDropout) -> tuple[Tensor, Tensor]:
    """Return styles (B, R, D), 1 for the image's and 0 for the empty image's, and masks of ones."""
    torch.manual_seed(0)

    def encode(image: Tensor, y: Tensor) -> Tensor:
        return image.amax((1, 2, 3))[:, None, None].expand(-1, R, D)

    return dropout(encode, torch.ones(B, 3, 4, 4), torch.ones(B, R, 4, 4))


def test_regions_lose_their_style_each_for_itself() -> None:
    context, y = dropped(StyleDropout(region=0.3))
    assert torch.equal(context[..., :1].expand_as(context), context)  # a region's whole code
    share = 1 - context[..., 0].mean(0)
    assert ((share > 0.2) & (share < 0.4)).all()
    # Independent: a share of 0.7^4 of the images loses none, 0.24.
    assert 0.15 < (context[..., 0] == 1).all(1).float().mean() < 0.34
    assert (y == 1).all()


def test_masks_go_together_with_all_styles() -> None:
    context, y = dropped(StyleDropout(mask=0.25))
    gone = (context == 0).all((1, 2))
    assert torch.equal(gone, (y == 0).all((1, 2, 3)))
    assert torch.equal(gone, (context == 0).any((1, 2)))
    assert 0.15 < gone.float().mean() < 0.35


def test_a_dropped_style_is_the_one_that_random_styles_have() -> None:
    model = small.sensitive(small.diffusion(probability_of_discard=0.0, probability_of_region_discard=1.0))
    batch = small.batch(2)
    y = one_hot(batch["labels"], 19)
    with torch.no_grad():
        found = model.conditions(batch, model.dropout)["context"]
        expected = model.get_learned_conditioning(torch.zeros_like(batch["image"]), y)
    torch.testing.assert_close(found, expected)


def test_styles_of_a_share_of_images_are_read_from_the_same_looks_in_another_shape() -> None:
    model = small.sensitive(small.diffusion(probability_of_discard=0.0))
    faces = default_collate([SyntheticFaces(16, 64, other_shape=True)[i] for i in range(64)])
    y, other_y = (one_hot(faces[name], 19) for name in ("labels", "other_labels"))
    with torch.no_grad():
        own = model.get_learned_conditioning(faces["image"], y)
        other = model.get_learned_conditioning(faces["other_image"], other_y)
        found = model.conditions(faces, StyleDropout(other_shape=0.3))
        everywhere = model.conditions(faces, StyleDropout(other_shape=1.0))
    assert torch.equal(found["y"], y)  # the shape to draw stays
    taken = (found["context"] - own).abs().amax((1, 2)) > 1e-5
    assert 10 <= taken.sum() <= 30
    torch.testing.assert_close(found["context"], torch.where(taken[:, None, None], other, own))
    torch.testing.assert_close(everywhere["context"], other)


def test_other_shape_requires_other_images() -> None:
    model = small.sensitive(small.diffusion(probability_of_other_shape=0.5))
    with pytest.raises(ValueError, match="have no other_image"):
        model.conditions(small.batch(2), model.dropout)


@pytest.mark.parametrize("name", ["discard", "region_discard", "mask_discard", "other_shape"])
def test_a_probability_is_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"probability_of_{name} must be in \[0, 1\], got 1\.5"):
        instantiate_from_config(small.diffusion(**{f"probability_of_{name}": 1.5}))


@pytest.mark.parametrize("parameterization", ["eps", "v"])
def test_min_snr_weights_the_error_of_x0_by_min_snr_gamma(parameterization: str) -> None:
    bar = NoiseSchedule.scaled_linear().alpha_bar
    snr = bar / (1 - bar)
    weights = min_snr_weights(bar, 5.0, parameterization).double()
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    # |eps error|^2 = SNR |x0 error|^2 and |v error|^2 = (SNR + 1) |x0 error|^2, so x0's weight is min(SNR, gamma).
    of_x0 = weights * (snr if parameterization == "eps" else snr + 1)
    expected = snr.clamp(max=5)
    torch.testing.assert_close(of_x0 / of_x0.sum(), expected / expected.sum(), rtol=1e-4, atol=0)


def test_the_weighted_loss_is_the_weighted_mean_of_the_images_errors() -> None:
    plain, weighted = (small.sensitive(small.diffusion(min_snr_gamma=gamma)) for gamma in (0, 5))
    batch = small.batch(2)
    t, noise = torch.tensor([20, 900]), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        z, cond = plain.encode_first_stage(batch["image"]), plain.conditions(batch)
        rows = [slice(0, 1), slice(1, 2)]
        errors = [
            float(plain.p_losses(z[r], {k: v[r] for k, v in cond.items()}, t[r], noise[r])[0]) for r in rows
        ]
        loss, log = weighted.p_losses(z, cond, t, noise)
    w = min_snr_weights(plain.schedule.alpha_bar, 5, "eps")[t]
    assert float(loss) == pytest.approx(float((w * torch.tensor(errors)).mean()), rel=1e-4)
    assert float(log["val/loss_simple"]) == pytest.approx(sum(errors) / 2, rel=1e-4)
    assert not weighted.state_dict().keys() - plain.state_dict().keys()


def test_zero_terminal_snr_ends_in_noise_and_keeps_the_start() -> None:
    before = NoiseSchedule.scaled_linear()
    after = before.zero_terminal_snr()
    assert after.alpha_bar[-1] == pytest.approx(2.0**-24, rel=1e-6)
    assert after.alpha_bar[0] == pytest.approx(float(before.alpha_bar[0]), rel=1e-12)
    assert (after.alpha_bar.diff() < 0).all() and (after.betas > 0).all() and (after.betas < 1).all()
    # The algorithm: sqrt(alpha_bar) is an affine map of what it was.
    a, b = before.alpha_bar.sqrt(), after.alpha_bar.sqrt()
    slope = (b[500] - b[0]) / (a[500] - a[0])
    torch.testing.assert_close(b, b[0] + slope * (a - a[0]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "unipc"])
def test_solvers_need_not_know_of_a_terminal_snr_of_zero(solver: str) -> None:
    """A network that knows the data (one point) predicts v exactly; sampling from pure noise then ends there."""
    model = small.sensitive(small.diffusion(parameterization="v", zero_terminal_snr=True))
    point = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def perfect(x: Tensor, t: Tensor, prepared: object, logits: object = None) -> Tensor:
        signal, sigma = model._levels(t)
        return (signal * x - point) / sigma  # v = signal eps - sigma x0 with eps = (x - signal x0) / sigma

    model.unet.denoise = perfect
    noise = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    cond = {"context": None, "y": None, "prepared": None}
    spacing = "uniform" if solver == "ddim" else "logsnr"
    found = sample(
        lambda x, t: model.apply_model(x, t, cond),
        noise,
        model.schedule,
        steps=20,
        solver=solver,
        spacing=spacing,
    )
    # The exact path: x = signal x0 + sigma eps with one eps all the way, down to the schedule's first step.
    bar = model.schedule.alpha_bar
    start = bar[model.schedule.timesteps(20)[-1] if solver == "ddim" else -1]
    eps = (noise - start.sqrt() * point) / (1 - start).sqrt()
    expected = bar[0].sqrt() * point + (1 - bar[0]).sqrt() * eps
    torch.testing.assert_close(found, expected.float(), atol=2e-3, rtol=0)


def test_zero_terminal_snr_wants_v() -> None:
    with pytest.raises(ValueError, match="set parameterization: v"):
        instantiate_from_config(small.diffusion(zero_terminal_snr=True))
    with pytest.raises(ValueError, match=r"min_snr_gamma must be positive.*got -1"):
        instantiate_from_config(small.diffusion(min_snr_gamma=-1))


def test_a_last_timestep_that_weighs_nothing_warns() -> None:
    keys = {"parameterization": "v", "zero_terminal_snr": True, "min_snr_gamma": 5}
    with pytest.warns(UserWarning, match="the last timestep of zero_terminal_snr the weight 0"):
        model = instantiate_from_config(small.diffusion(**keys))
    assert float(model.loss.timestep_weights[-1]) < 1e-6


def test_the_style_encoders_average_is_kept_saved_and_used(tmp_path) -> None:
    config = small.diffusion(ema_style_encoder=True, ema_decay=0.5)
    model = instantiate_from_config(config)
    start = [p.clone() for p in model.cond_stage_model.parameters()]
    with torch.no_grad():
        for parameter in model.cond_stage_model.parameters():
            parameter += 1
    model.cond_stage_ema.update(model.cond_stage_model)  # 0.9 of the way: the warm-up's decay is 2 / 11
    path = write_checkpoint(tmp_path / "model.safetensors", model.state_dict(), {"model": config})
    averaged = build_model({"model": config}, read_checkpoint(path), weights="ema")
    raw = build_model({"model": config}, read_checkpoint(path), weights="raw")
    for before, mean, last in zip(
        start, averaged.cond_stage_model.parameters(), raw.cond_stage_model.parameters(), strict=True
    ):
        torch.testing.assert_close(mean, before + 9 / 11)
        torch.testing.assert_close(last, before + 1)
    assert averaged.cond_stage_ema is None
    with model.ema_scope():
        torch.testing.assert_close(next(model.cond_stage_model.parameters()), start[0] + 9 / 11)
    torch.testing.assert_close(next(model.cond_stage_model.parameters()), start[0] + 1)
    # Weights without it start it anew.
    bare = {k: v for k, v in model.state_dict().items() if not k.startswith("cond_stage_ema.")}
    file = write_checkpoint(tmp_path / "bare.safetensors", bare)
    started = instantiate_from_config(small.diffusion(ema_style_encoder=True, ckpt_path=str(file)))
    with started.ema_scope():
        torch.testing.assert_close(next(started.cond_stage_model.parameters()), start[0] + 1)


def test_channels_last_gives_the_same_loss_and_gradients() -> None:
    losses, gradients = [], []
    for channels_last in (False, True):
        model = small.sensitive(
            small.diffusion(channels_last=channels_last, probability_of_discard=0.0)
        ).train()
        batch = small.batch(2)
        cond, z = model.conditions(batch), model.encode_first_stage(batch["image"])
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
        loss, _ = model.p_losses(z, cond, torch.tensor([100, 700]), noise)
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in model.model.parameters() if p.grad is not None])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-9)
    assert model.unet.input_blocks[0][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_grid_of_styles_trains_and_everything_downstream_takes_their_codes(tmp_path) -> None:
    config = small.diffusion(unet={"style_grid": 2}, probability_of_discard=0.0)
    model, batch = small.sensitive(config).train(), small.batch(4)
    model.log_dict = lambda *a, **k: None
    model.training_step(batch, 0).backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, grad in trained.items() if grad is None or not grad.any()] == []
    write_checkpoint(tmp_path, model.state_dict(), {"model": config})
    pipe = FacePipeline.from_pretrained(tmp_path, device="cpu")
    first, second, *_ = pipe.read_style(batch["image"], batch["labels"])
    first.swap(second, ["hair"]).lerp(second, 0.5, ["skin"]).save(tmp_path / "a.style")
    style = load_style(tmp_path / "a.style", pipe.label_set)
    assert torch.equal(style["hair"], second["hair"]) and not torch.equal(style["skin"], first["skin"])
    picture = pipe(batch["labels"][0], style, steps=2, seed=0, guidance={"hair": 2.0})
    assert picture.shape == (3, 16, 16) and picture.isfinite().all()


def test_a_compiled_step_has_the_same_loss_gradients_and_names() -> None:
    one_block = {"channel_mult": [1], "attention_resolutions": []}
    model = small.sensitive(small.diffusion(compile="aot_eager", unet=one_block)).train()
    batch, noise = small.batch(2), torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    z, cond, t = model.encode_first_stage(batch["image"]), model.conditions(batch), torch.tensor([100, 700])
    cond = {name: tensor.detach() for name, tensor in cond.items()}
    names, results = list(model.state_dict()), []
    for compiled in (False, True):
        if compiled:
            model.on_fit_start()
        model.zero_grad()
        loss, _ = model.p_losses(z, cond, t, noise)
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.unet.parameters() if p.grad is not None)])
    assert getattr(model.unet.denoise, "_torchdynamo_orig_callable", None) is not None
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()) + 1e-9)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("keys", "rates"),
    [
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1]),
        ({"warmup_steps": 2, "anneal_steps": 4}, [0.5, 0.853553, 0.5, 0.146447, 0, 0]),
        ({"warmup_steps": 0, "anneal_steps": 4}, [1, 0.853553, 0.5, 0.146447, 0, 0]),
    ],
)
def test_the_learning_rate_rises_and_falls_as_asked(keys: dict, rates: list[float]) -> None:
    model = instantiate_from_config(small.diffusion(**keys))
    model.learning_rate = 1.0
    made, found = model.configure_optimizers(), []
    for _ in rates:
        found.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert found == pytest.approx(rates, abs=1e-6)


def test_the_published_rate_is_constant_and_a_negative_warm_up_is_refused() -> None:
    model = instantiate_from_config(small.diffusion())
    assert isinstance(model.configure_optimizers(), torch.optim.AdamW)
    model.optimization = OptimizerSettings(warmup_steps=-1)
    with pytest.raises(ValueError, match=r"warmup_steps must be at least 0, got .* and -1"):
        model.configure_optimizers()
