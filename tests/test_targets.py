import os
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.convert import read_first_stage
from ldm.targets import (
    BUILDABLE,
    TARGETS,
    ConfigError,
    check_config,
    instantiate_from_config,
    resolve,
    targets_in,
)
from tests import small
from tests.training.runs import TINY, only_run, output_of, rows, start_process

ROOT = Path(__file__).parents[1]

# Names in YAMLs, saved runs and checkpoints that people have: the original code's, and our own former ones.
PUBLISHED_NAMES = [
    "dataset.CelebAHQ",
    "dataset.Cityscape",
    "dataset.DeepFashion",
    "dataset.Ade20K",
    "main.DataModuleFromConfig",
    "main.ImageLogger",
    "ldm.models.autoencoder.VQModel",
    "ldm.models.autoencoder.VQModelInterface",
    "ldm.models.diffusion.ddpm.LatentDiffusion",
    "ldm.modules.diffusionmodules.openaimodel.UNetModel",
    "ldm.modules.diffusionmodules.styleenc.MultiScaleEffStyleEncoder",
]
FORMER_NAMES = [
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.callbacks.LearningRateMonitor",
    "ldm.data.ade20k.ADE20K",
    "ldm.data.celebamask.CelebAMaskHQ",
    "ldm.data.cityscapes.Cityscapes",
    "ldm.data.datamodule.DataModuleFromConfig",
    "ldm.data.deepfashion.DeepFashion",
    "ldm.data.shards.ShardedFaces",
    "ldm.data.synthetic_faces.SyntheticFaces",
    "ldm.models.diffusion.LatentDiffusion",
    "ldm.models.first_stage.VQModel",
    "ldm.models.first_stage.VQModelInterface",
    "ldm.models.segformer.SegFormer",
]


@pytest.mark.parametrize("target", PUBLISHED_NAMES)
def test_published_names_resolve(target: str) -> None:
    assert resolve(target).__module__.startswith("ldm.")


@pytest.mark.parametrize("target", sorted(BUILDABLE))
def test_the_tables_hold_classes_under_their_own_names(target: str) -> None:
    cls = resolve(target)
    assert (
        target.startswith(("torch.", "pytorch_lightning."))
        or f"{cls.__module__}.{cls.__qualname__}" == target
    )


@pytest.mark.parametrize("target", FORMER_NAMES)
def test_former_names_resolve_to_the_same_class(target: str) -> None:
    assert resolve(target).__name__ == target.rpartition(".")[2]


def test_every_name_in_the_table_is_tested() -> None:
    assert TARGETS.keys() <= {*PUBLISHED_NAMES, *FORMER_NAMES}


def test_configs_use_the_names_of_today() -> None:
    """The YAMLs of the published models keep the original code's names; no shipped config has a former one."""
    for file in [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("checkpoints/*/config.yaml")]:
        found = set(targets_in(OmegaConf.to_container(OmegaConf.load(file))))
        assert not found & (TARGETS.keys() - set(PUBLISHED_NAMES)), file


def test_the_published_data_section_builds(tmp_path) -> None:
    from PIL import Image

    for folder, mode in (("images", "RGB"), ("labels", "L")):
        (tmp_path / folder).mkdir()
        for name in ("7", "12"):
            Image.new(mode, (16, 16)).save(tmp_path / folder / f"{name}.png")
    dataset = {
        "target": "dataset.CelebAHQ",
        "params": {"size": 8, "path": str(tmp_path), "keys": ["image", "label"]},
    }
    params = {"batch_size": 2, "num_workers": 0, "wrap": False, "train": dataset, "validation": dataset}
    data = instantiate_from_config({"target": "main.DataModuleFromConfig", "params": params})
    data.setup()
    assert [item["name"] for item in data.datasets["train"]] == ["7", "12"]
    logger = {
        "target": "main.ImageLogger",
        "params": {"batch_frequency": 50, "max_images": 4, "increase_log_steps": True},
    }
    assert instantiate_from_config(logger).batch_frequency == 50


def test_any_class_that_can_be_imported() -> None:
    layer = instantiate_from_config(
        {"target": "torch.nn.Linear", "params": {"in_features": 2, "out_features": 3}}
    )
    assert isinstance(layer, torch.nn.Linear)
    assert isinstance(instantiate_from_config({"target": "torch.nn.Identity"}), torch.nn.Identity)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"params": {}}, "needs a `target`"),
        ({"target": "dataset.CelebHQ"}, "did you mean 'dataset.CelebAHQ'"),
        ({"target": "ldm.modules.unet.Unet"}, "did you mean 'UNet'"),
        ({"target": "nowhere"}, "not a dotted path"),
        ({"target": "os.system"}, "not a class"),
        ({"target": "torch.nn.Linear", "params": {"in_feature": 2}}, "did you mean 'in_features'"),
        ({"target": "torch.nn.Linear", "params": {"in_features": 2}}, "needs the parameter out_features"),
        (
            {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"},
            r'pip install -e "\.\[taming\]" .+ or use our own loss, target ldm\.modules\.losses\.VQLoss',
        ),
    ],
)
def test_mistakes_name_the_mend(config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instantiate_from_config(config)


# What of taming-transformers' loss a first stage touches, with a convolution for each of its networks.
TAMING_LOSS = """
import torch
from torch import nn


class VQLPIPSWithDiscriminator(nn.Module):
    def __init__(self, disc_start, codebook_weight=1.0, pixelloss_weight=1.0, disc_num_layers=3, disc_in_channels=3,
                 disc_factor=1.0, disc_weight=1.0, perceptual_weight=1.0, use_actnorm=False, disc_conditional=False,
                 disc_ndf=64, disc_loss="hinge"):
        super().__init__()
        self.perceptual_loss = nn.Conv2d(3, 4, 3).requires_grad_(False)
        self.discriminator = nn.Conv2d(disc_in_channels, 1, 4, stride=2)
        self.codebook_weight, self.discriminator_weight = codebook_weight, disc_weight
        self.discriminator_iter_start = disc_start

    def calculate_adaptive_weight(self, nll_loss, g_loss, last_layer=None):
        of = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (nll_loss, g_loss)]
        return (of[0] / (of[1] + 1e-4)).clamp(0.0, 1e4).detach() * self.discriminator_weight

    def forward(self, codebook_loss, inputs, reconstructions, optimizer_idx, global_step, last_layer=None, cond=None,
                split="train"):
        factor = float(global_step >= self.discriminator_iter_start)
        if optimizer_idx == 0:
            rec = (inputs - reconstructions).abs().mean()
            rec = rec + (self.perceptual_loss(inputs) - self.perceptual_loss(reconstructions)).square().mean()
            g_loss = -self.discriminator(reconstructions).mean()
            try:
                weight = self.calculate_adaptive_weight(rec, g_loss, last_layer=last_layer)
            except RuntimeError:
                assert not self.training
                weight = torch.tensor(0.0)
            loss = rec + weight * factor * g_loss + self.codebook_weight * codebook_loss.mean()
            return loss, {f"{split}/total_loss": loss.clone().detach().mean(), f"{split}/rec_loss": rec.detach(),
                          f"{split}/d_weight": weight.detach(), f"{split}/disc_factor": torch.tensor(factor)}
        real, fake = self.discriminator(inputs.detach()), self.discriminator(reconstructions.detach())
        loss = factor * 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean())
        return loss, {f"{split}/disc_loss": loss.clone().detach()}
"""
TAMING = "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"


def test_a_first_stage_trains_with_the_loss_that_published_yamls_name(tmp_path, monkeypatch) -> None:
    """Where taming-transformers is installed; here a package with the interface of its loss."""
    package = tmp_path / "site" / "taming" / "modules" / "losses"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "vqperceptual.py").write_text(TAMING_LOSS)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    )

    published = {"disc_conditional": False, "disc_in_channels": 3, "disc_start": 2, "disc_weight": 0.75}
    loss = {"target": TAMING, "params": {**published, "codebook_weight": 1.0}}
    faces = {"target": "tests.training.tiny.TinyFaces", "params": {"length": 16, "size": 16}}
    config = {
        **TINY,
        "model": small.first_stage(lossconfig=loss, n_embed=64),
        "data": {
            **TINY["data"],
            "params": {"batch_size": 4, "num_workers": 0, "train": faces, "validation": faces},
        },
    }
    base = tmp_path / "first_stage.yaml"
    OmegaConf.save(OmegaConf.create(config), base)
    process = start_process(tmp_path, "lightning.trainer.max_epochs=1", base=base)
    output = output_of(process)
    assert process.returncode == 0, output
    found = rows(tmp_path)
    joined = [float(row["train/disc_loss"]) > 0 for row in found if row.get("train/disc_loss")]
    assert joined == [False, False, True, True]  # batches, not optimizer steps
    assert any(row.get("val/rec_loss") for row in found)
    stage = read_first_stage(only_run(tmp_path))  # and the foreign package is not needed
    assert "taming" not in sys.modules and stage.params["n_embed"] == 64


@pytest.mark.parametrize(
    ("target", "old", "new"),
    [
        (
            "ldm.modules.moment_style_encoder.MomentStyleEncoder",
            {"frames": {0: "picture", 13: 1}},
            {"region_frames": {0: "image", 13: 1}},
        ),
        (
            "ldm.modules.unet.UNet",
            {"style_frames": {0: "picture", 2: 1}},
            {"region_frames": {0: "image", 2: 1}},
        ),
        ("ldm.modules.unet.UNet", {"mask_shares": True}, {"area_masks": True}),
        (
            "ldm.modules.moment_style_encoder.MomentStyleEncoder",
            {"coarse": {1: 1}},
            {"coarse_grids": {1: 1}},
        ),
        (
            "ldm.modules.moment_style_encoder.MomentStyleEncoder",
            {"reduce": 2},
            {"input_downsampling": 2},
        ),
        ("ldm.models.first_stage.VQModel", {"revive_after": 7}, {"codebook_reset_after": 7}),
    ],
)
def test_parameters_of_older_configs_keep_working(target: str, old: dict, new: dict) -> None:
    rest = {
        "UNet": {
            **small.DIFFUSION["params"]["unet_config"]["params"],
            "style_grid": 2,
            "context_dim": 32,
        },
        "VQModel": small.FIRST_STAGE["params"],
        "MomentStyleEncoder": {"num_mask_channels": 19, "output_dim": 8, "grid": 2},
    }[target.rpartition(".")[2]]
    (name, expected), (former,) = *new.items(), old
    for params in (old, new):
        built = instantiate_from_config({"target": target, "params": {**rest, **params}})
        check_config({"target": target, "params": {**rest, **params}}, "model")
        assert getattr(built, name) == expected
    with pytest.raises(ConfigError, match=f"{former} is the former name of {name}"):
        instantiate_from_config({"target": target, "params": {**rest, **old, **new}})
