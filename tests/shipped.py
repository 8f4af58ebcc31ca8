"""The shipped configs, shrunk to networks that a test can train."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate

from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.targets import instantiate_from_config
from ldm.training.config import load_config
from tests import small

FOLDER = Path(__file__).parents[1] / "configs" / "latent-diffusion"
AUTOENCODERS, PARSERS = FOLDER.parent / "autoencoder", FOLDER.parent / "face-parser"
# Each model once: a config for fine-tuning has that of the config before it.
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.endswith("-finetune"))


def shrunk(name: str, **params: Any) -> Any:
    """Build the model of a shipped config with narrow networks and random weights."""
    base = ["celebamask-hq"] * name.startswith(
        ("cityscapes", "celebamask-hq-plain", "celebamask-hq-attention")
    )
    config = load_config([FOLDER / f"{each}.yaml" for each in [*base, name]], complete=False)["model"]
    own, unet = config["params"], config["params"]["unet_config"]["params"]
    style = own["cond_stage_config"]["params"]
    first_stage = own["first_stage_config"]["params"]
    own |= {"image_size": min(own["image_size"], 16), "anneal_steps": 0, **params}
    unet["model_channels"] = 32
    first_stage |= {"ckpt_path": None, "n_embed": 64}
    first_stage["ddconfig"]["ch"] = 32 if first_stage["ddconfig"].get("norm_groups", 32) else 8
    if style.get("num_feat"):  # the published style encoder
        style |= {"num_feat": 1, "output_dim": 8}
        unet["context_dim"] = 8 * style["num_upsample"]
    return small.randomized(instantiate_from_config(config))


def shrunk_autoencoder(file: Path) -> Any:
    """Build the autoencoder of a shipped config at the start of its training, with narrow networks."""
    config = load_config([file], complete=False)["model"]
    params, loss = config["params"], config["params"]["lossconfig"]["params"]
    params |= {"n_embed": 64, "anneal_steps": 0}
    params["ddconfig"]["ch"] = min(params["ddconfig"]["ch"], 32)
    if loss.get("disc_weight"):
        loss["disc_channels"] = 8
    return instantiate_from_config(config)


def shrunk_parser(file: Path) -> Any:
    """Build the face parser of a shipped config without dropout, which consumes other random numbers in bfloat16."""
    config = load_config([file], complete=False)["model"]
    config["params"]["anneal_steps"] = 0
    if "segformer" in config["params"]:
        config["params"]["segformer"] |= {"classifier_dropout_prob": 0.0, "drop_path_rate": 0.0}
    return instantiate_from_config(config)


def batch(model: Any, count: int = 2) -> dict[str, Any]:
    """Return a batch of synthetic faces of the model's size, with a second shape of each."""
    size = model.image_size * model.first_stage_model.factor
    faces = SyntheticFaces(size, count, seed=1, other_shape=True)
    found = default_collate([faces[i] for i in range(count)])
    assert all(torch.is_tensor(found[name]) for name in ("image", "labels", "other_image", "other_labels"))
    return found
