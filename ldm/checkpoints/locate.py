"""Where a model's weights and config are: a run folder, a file, a folder of the hub; and where it can run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import Checkpoint, read_checkpoint, read_config

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
BUNDLED = Path(__file__).resolve().parents[2] / "checkpoints"
DEMO = BUNDLED / "demo"  # a model of drawn faces
FACE_PARSER = BUNDLED / "faces" / "parser"


def find_model(
    path: str | Path, config: str | Path | Mapping[str, Any] | None = None
) -> tuple[Checkpoint, dict[str, Any]]:
    """Read the weights and the config of a model.

    Args:
        path: a run folder, a folder with model.safetensors and config.yaml, a weight file, or, where huggingface_hub
            is installed, owner/name of such a folder on the hub.
        config: the YAML that builds the model, for weight files that come without one.

    Raises:
        CheckpointError: no weights, or no config.
    """
    checkpoint = find_weights(path, config)
    if checkpoint.config is None:
        raise CheckpointError(
            f"{checkpoint.path}: no config beside it; name the YAML that the model was trained with "
            "(for published weights configs/latent-diffusion/celebamask-hq.yaml) by --config, or config= in Python"
        )
    return checkpoint, checkpoint.config


def find_weights(path: str | Path, config: str | Path | Mapping[str, Any] | None = None) -> Checkpoint:
    """Read the weights of a model, and its config where there is one; see `find_model`.

    Raises:
        CheckpointError: no weights.
    """
    file = _weight_file(_local(path))
    checkpoint = read_checkpoint(file)
    if config is not None:
        checkpoint.config = read_config(config)
    elif not checkpoint.config:
        checkpoint.config = _config_near(file)
    return checkpoint


def usable_device(wanted: str | torch.device | None = None) -> torch.device:
    """Return the device that is asked for; without one CUDA where there is it, else Apple's MPS, else the CPU.

    Raises:
        ValueError: torch cannot use it here.
    """
    if wanted is not None:
        try:
            return torch.empty(0, device=wanted).device
        except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device {str(wanted)!r} cannot be used here: {reason}; try cpu, or leave it out"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _local(path: str | Path) -> Path:
    """Return `path`, or the folder of the Hugging Face hub's model that it names as owner/name."""
    place = Path(path)
    if place.exists() or not HUB_NAME.fullmatch(str(path)):
        return place
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return place  # who never installed it means a path, and is told that there is none
    try:
        return Path(snapshot_download(str(path), allow_patterns=["*.safetensors", "*.yaml"]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: neither a file or folder here nor a model that the hub gave ({reason}); check the name"
        ) from error


def _weight_file(path: Path) -> Path:
    """Return the weights of a run folder, or `path` itself."""
    last = path / "checkpoints" / "last.ckpt"
    return last if last.is_file() else path


def _config_near(file: Path) -> dict[str, Any] | None:
    """Return the config of the run that a checkpoint belongs to, if it belongs to one."""
    run_config = file.parent.parent / "config.yaml"
    belongs = file.parent.name == "checkpoints" and run_config.is_file()
    return read_config(run_config) if belongs else None
