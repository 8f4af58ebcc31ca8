import pytest
import torch

from ldm.targets import (
    TARGETS,
    ConfigError,
    instantiate_from_config,
    refuse_foreign_targets,
    resolve,
    targets_in,
)

OLD_NAMES = [
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


@pytest.mark.parametrize("target", OLD_NAMES)
def test_published_names_resolve(target: str) -> None:
    assert resolve(target) is resolve(TARGETS[target])


def test_the_table_has_no_name_that_leads_nowhere() -> None:
    assert sorted(TARGETS) == sorted(OLD_NAMES)


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
            r'no module .taming. here; pip install -e "\.\[taming\]" .+ or use our own loss, target ldm\.modules\.losses\.VQLoss',
        ),
    ],
)
def test_mistakes_name_the_mend(config: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instantiate_from_config(config)


def test_configs_that_came_with_weights_build_nothing_foreign() -> None:
    inner = {"target": "subprocess.Popen", "params": {"args": ["true"]}}
    config = {"target": "dataset.CelebAHQ", "params": {"parts": [{"deep": inner}]}}
    assert list(targets_in(config)) == ["dataset.CelebAHQ", "subprocess.Popen"]
    with pytest.raises(ConfigError, match=r"subprocess\.Popen"):
        refuse_foreign_targets(config)
    refuse_foreign_targets({"target": "torch.nn.Identity"})
