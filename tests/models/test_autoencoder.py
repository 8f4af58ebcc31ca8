"""VQModel's training: with and without a discriminator, the codebook's revival, checkpoints."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from ldm.checkpoints.io import write_checkpoint
from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.models.autoencoder import VQModel, VQModelInterface
from ldm.targets import instantiate_from_config
from tests import small
from tests.training.runs import TINY, only_run, rows, train_here


def model(**params):
    torch.manual_seed(0)
    built = instantiate_from_config(small.first_stage(**params))
    built.learning_rate = 1e-3
    return built


def fit(m, steps: int, tmp_path, **options) -> pl.Trainer:
    faces = DataLoader(SyntheticFaces(16, 16, seed=0), batch_size=4)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,
    )
    trainer.fit(m, faces)
    return trainer


def reconstruction_error(m) -> float:
    with torch.no_grad():
        image = small.batch(8, seed=0)["image"]
        return (m.eval()(image)[0] - image).abs().mean().item()


def test_training_improves_the_reconstruction(tmp_path) -> None:
    m = model(codebook_reset_after=5, anneal_steps=60, n_embed=64)
    before = reconstruction_error(m)
    trainer = fit(m.train(), 60, tmp_path)
    assert reconstruction_error(m) < 0.7 * before
    assert trainer.callback_metrics["train/codebook_use"] > 0.2


def test_training_with_a_discriminator_moves_both(tmp_path) -> None:
    loss = {
        "target": "ldm.modules.losses.VQLoss",
        "params": {"disc_weight": 0.5, "disc_start": 2, "disc_channels": 8, "disc_num_layers": 1},
    }
    m = model(lossconfig=loss)
    discriminator = m.loss.discriminator.layers[0].weight
    start, own = discriminator.detach().clone(), m.decoder.conv_in.weight.detach().clone()
    trainer = fit(
        m, 4, tmp_path
    )  # two optimizers: four steps are two batches, before the discriminator joins
    assert torch.equal(discriminator, start) and not torch.equal(m.decoder.conv_in.weight, own)
    fit(m, 8, tmp_path)
    assert not torch.equal(discriminator, start)
    assert trainer.global_step == 4 and m._steps == 6


def test_one_backward_pass_for_both_losses_is_worth_two(tmp_path) -> None:
    loss = {
        "target": "ldm.modules.losses.VQLoss",
        "params": {"disc_weight": 0.5, "disc_channels": 8, "disc_num_layers": 1},
    }
    m, expected = model(lossconfig=loss), model(lossconfig=loss)
    fit(m, 2, tmp_path)  # two optimizer steps: one batch
    image = small.batch(4, seed=0)["image"]
    output = expected(image)
    optimizers = expected.configure_optimizers()
    values = [expected._losses(image, output, i, "train")[0] for i in (0, 1)]
    for optimizer, value in zip(optimizers, values, strict=True):
        parameters = optimizer.param_groups[0]["params"]
        for p, gradient in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
            p.grad = gradient
    for optimizer in optimizers:
        optimizer.step()
    for (name, found), parameter in zip(m.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, parameter, rtol=0, atol=1e-5, msg=name)  # a step is 1e-3


class Report(pl.Callback):
    """Write what a process has at the end of its training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        codebook, discriminator = pl_module.quantize, pl_module.loss.discriminator
        content = {
            "idle": codebook.idle,
            "codebook": codebook.embedding.weight,
            "discriminator": discriminator.layers[0].weight,
        }
        torch.save(
            {key: value.detach() for key, value in content.items()}, self.folder / f"{trainer.global_rank}.pt"
        )


def test_two_processes_train_one_model(tmp_path) -> None:
    """With a discriminator and the codebook's revival, in Lightning's plain data-parallel strategy."""
    loss = {
        "target": "ldm.modules.losses.VQLoss",
        "params": {"disc_weight": 0.5, "disc_start": 1, "disc_channels": 8, "disc_num_layers": 1},
    }
    m = model(lossconfig=loss, codebook_reset_after=2, n_embed=64)
    start = m.loss.discriminator.layers[0].weight.detach().clone()
    fit(m, 4, tmp_path, devices=2, strategy="ddp_spawn", callbacks=[Report(tmp_path)])
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["idle"].unique().tolist() == [0, 1]  # idle is what neither has chosen
    assert not torch.equal(first["discriminator"], start)


def test_the_discriminator_step_leaves_the_autoencoder_alone() -> None:
    loss = {
        "target": "ldm.modules.losses.VQLoss",
        "params": {"disc_weight": 0.5, "disc_channels": 8, "disc_num_layers": 1},
    }
    m, image = model(lossconfig=loss), small.batch(2)["image"]
    value, _ = m._losses(image, m(image), 1, "train")
    value.backward()
    assert m.decoder.conv_in.weight.grad is None and m.loss.discriminator.layers[0].weight.grad.any()


def test_revival_starts_the_codebook_where_the_latents_are() -> None:
    m, image = model(codebook_reset_after=3, n_embed=64).train(), small.batch(8)["image"]
    z = m.encode(image)
    assert m.quantize.reset_unused(z, 3) == 64
    pixels = z.permute(0, 2, 3, 1).reshape(-1, 3)
    distance = torch.cdist(m.quantize.embedding.weight, pixels).amin(1)
    assert distance.max() < 1e-2 and m.quantize.embedding.weight.unique(dim=0).shape[0] == 64
    used = m.quantize(z)[2].unique()
    assert m.quantize.reset_unused(z, 3) == 0  # nothing is idle for three batches yet
    for _ in range(2):
        m.quantize(z)
    assert m.quantize.reset_unused(z, 3) == 64 - len(used)


def test_a_loaded_codebook_is_not_moved(tmp_path) -> None:
    trained = model(n_embed=64)
    file = write_checkpoint(tmp_path / "first.safetensors", trained.state_dict())
    m = model(n_embed=64, codebook_reset_after=3, ckpt_path=str(file))
    assert m.quantize.reset_unused(m.encode(small.batch(4)["image"]), 3) == 0
    assert torch.equal(m.quantize.embedding.weight, trained.quantize.embedding.weight)


def test_a_discriminator_that_would_never_join_is_noticed(tmp_path) -> None:
    loss = {
        "target": "ldm.modules.losses.VQLoss",
        "params": {"disc_weight": 0.5, "disc_start": 2, "disc_channels": 8, "disc_num_layers": 1},
    }
    with pytest.warns(UserWarning, match="set max_steps above 4"):
        fit(model(lossconfig=loss), 4, tmp_path)
    recipe = OmegaConf.load(Path(__file__).parents[2] / "configs/autoencoder/vq-f4.yaml")
    assert recipe.lightning.trainer.max_steps > 2 * recipe.model.params.lossconfig.params.disc_start


def test_what_a_resumed_training_needs_is_in_its_checkpoint() -> None:
    m, image = model(codebook_reset_after=3, n_embed=64).train(), small.batch(4)["image"]
    m.quantize.reset_unused(m.encode(image), 3)
    m.quantize(m.encode(image) * 0)  # one entry is chosen, the others idle
    m._steps = 7
    saved: dict = {}
    m.on_save_checkpoint(saved)
    other = model(codebook_reset_after=3, n_embed=64)
    other.on_load_checkpoint(saved)
    assert other._steps == 7
    assert torch.equal(other.quantize.idle, m.quantize.idle) and m.quantize.idle.unique().tolist() == [0, 1]


def test_adversarial_training_resumes_exactly(tmp_path) -> None:
    loss = {"disc_weight": 0.5, "disc_start": 3, "disc_channels": 8, "disc_num_layers": 1}
    faces = {"target": "tests.training.tiny.TinyFaces", "params": {"length": 16, "size": 16}}
    data = {"batch_size": 4, "num_workers": 0, "train": faces, "validation": faces}
    config = OmegaConf.create(
        {
            **TINY,
            "model": small.first_stage(
                lossconfig={"target": "ldm.modules.losses.VQLoss", "params": loss},
                n_embed=64,
                codebook_reset_after=2,
            ),
            "data": {**TINY["data"], "params": data},
        }
    )
    OmegaConf.save(config, tmp_path / "first_stage.yaml")
    epochs = "lightning.trainer.max_epochs="  # of four batches: the discriminator joins within the first
    for name, first in (("whole", 2), ("halves", 1)):
        assert train_here(tmp_path / name, f"{epochs}{first}", base=tmp_path / "first_stage.yaml") == 0
    assert train_here(tmp_path / "halves", f"{epochs}2", resume=only_run(tmp_path / "halves")) == 0
    whole, halves = (
        [(row["train/loss"], row["train/disc_loss"]) for row in rows(tmp_path / name) if row["train/loss"]]
        for name in ("whole", "halves")
    )
    assert whole == halves
    assert [float(loss) > 0 for _, loss in whole] == [False] * 3 + [True] * 5


def test_a_trained_first_stage_can_be_tested(tmp_path) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    (scores,) = trainer.test(model(), DataLoader(SyntheticFaces(16, 4), batch_size=4), verbose=False)
    assert scores["test/rec_loss"] > 0


def test_weights_of_another_training_are_a_start(tmp_path) -> None:
    trained = model()
    with torch.no_grad():
        trained.quantize.embedding.weight.normal_()
    file = write_checkpoint(tmp_path / "first.safetensors", trained.state_dict())
    started = model(ckpt_path=str(file))
    assert torch.equal(started.quantize.embedding.weight, trained.quantize.embedding.weight)
    whole = small.diffusion()
    whole["params"]["first_stage_config"]["params"]["ckpt_path"] = str(file)
    diffusion = instantiate_from_config(whole)
    used = diffusion.first_stage_model
    assert torch.equal(used.quantize.embedding.weight, trained.quantize.embedding.weight)
    complete = write_checkpoint(tmp_path / "complete.safetensors", diffusion.state_dict())
    started = model(ckpt_path=str(complete))
    assert torch.equal(started.quantize.embedding.weight, trained.quantize.embedding.weight)


def test_annealing_and_a_discriminator_exclude_each_other() -> None:
    loss = {"target": "ldm.modules.losses.VQLoss", "params": {"disc_weight": 0.5}}
    with pytest.raises(ValueError, match="anneal_steps"):
        model(lossconfig=loss, anneal_steps=10)


def test_patches_of_the_latent_are_channels_and_decode_to_the_same_image() -> None:
    config = {"embed_dim": 3, "n_embed": 32, "ddconfig": small.DDCONFIG}
    plain, patched = VQModelInterface(**config).eval(), VQModelInterface(**config, patch=2).eval()
    patched.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = patched.encode(image)
    assert z.shape == (2, 12, 2, 2) and patched.factor == 2 * plain.factor
    torch.testing.assert_close(patched.decode(z), plain.decode(plain.encode(image)))
    torch.testing.assert_close(patched(image)[0], plain(image)[0])


def test_scale_equivariance_is_the_l1_at_half_size_and_reaches_the_encoder() -> None:
    torch.manual_seed(0)
    model = VQModel(**small.FIRST_STAGE["params"], scale_equivariance=0.5)
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    z = model.encode(image)
    half = F.avg_pool2d(image, 2)
    expected = (model.decode(F.avg_pool2d(z, 2), force_not_quantize=True) - half).abs().mean()
    torch.testing.assert_close(model._scale_loss(image, z), expected)
    model._scale_loss(image, z).backward()
    assert float(model.encoder.conv_in.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("disc_weight", [0, 0.5])
def test_scale_equivariance_trains_with_and_without_a_discriminator(disc_weight: float, tmp_path) -> None:
    loss = {
        "target": "ldm.modules.losses.VQLoss",
        "params": {"disc_weight": disc_weight, "disc_channels": 8, "disc_num_layers": 1},
    }
    errors = []
    for weight in (0.0, 100.0):
        m = model(lossconfig=loss, scale_equivariance=weight)
        trainer = fit(m, 8 if disc_weight else 4, tmp_path)
        image = small.batch(4, seed=0)["image"]
        errors.append(m._scale_loss(image, m.encode(image)).item())
    assert errors[1] < 0.95 * errors[0]
    assert "train/scale_loss" in trainer.callback_metrics
