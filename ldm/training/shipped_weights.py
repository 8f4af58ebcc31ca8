"""Which of the weights that come with the code fit the networks of a config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm.checkpoints.io import read_config
from ldm.checkpoints.locate import BUNDLED
from ldm.targets import canonical
from ldm.training.config import flat

# Parameters of a model that decide what its weights mean; the others are settings of its training.
NETWORKS = (
    *("image_size", "channels", "unet_config", "cond_stage_config", "first_stage_config"),  # diffusion
    *("parameterization", "linear_start", "linear_end", "timesteps", "zero_terminal_snr"),
    *("ddconfig", "embed_dim", "n_embed", "patch"),  # first stage
    *("widths", "input_side", "label_set"),  # face parser
)


def shipped_weights(config: Mapping[str, Any], below: Path = BUNDLED / "faces") -> Path | None:
    """Return the folder with weights of the config's networks, None if there is none.

    Args:
        config: a merged config.
        below: where to look, in the folders there that have a config.yaml.
    """
    for file in sorted(below.glob("*/config.yaml")):
        if networks(read_config(file)) == networks(config):
            return file.parent
    return None


def networks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a config, by dotted key, that decide which weights fit."""
    model = config["model"]
    params = {key: value for key, value in (model.get("params") or {}).items() if key in NETWORKS}
    return {
        key: canonical(value) if key.endswith("target") else value
        for key, value in flat({"target": model["target"], **params}).items()
        if not key.endswith("ckpt_path")
    }
