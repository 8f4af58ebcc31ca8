"""Find the weights and the config of a model: in a run folder, a file, an exported folder, or on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm.bundle import ROOT
from ldm.checkpoints.device import usable_device
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.hub import download, hub_name
from ldm.checkpoints.io import Checkpoint, read_checkpoint, read_config

__all__ = ["BUNDLED", "DEMO", "FACES", "FACE_PARSER", "find_model", "find_weights", "usable_device"]

BUNDLED = ROOT / "checkpoints"
DEMO = BUNDLED / "demo"  # a model of synthetic faces
FACES = BUNDLED / "faces" / "diffusion"  # a model of real faces
FACE_PARSER = BUNDLED / "faces" / "parser"


def find_model(
    path: str | Path, config: str | Path | Mapping[str, Any] | None = None
) -> tuple[Checkpoint, dict[str, Any]]:
    """Read the weights and the config of a model.

    Args:
        path: a run folder, a folder with model.safetensors and config.yaml, a weight file, or, if
            huggingface_hub is installed, the owner/name of such a folder on the hub.
        config: YAML of the model, for weight files without one.

    Raises:
        CheckpointError: no weights, or no config.
    """
    checkpoint = find_weights(path, config)
    if checkpoint.config is None:
        raise CheckpointError(
            f"{checkpoint.path}: no config next to it; pass the YAML that the model was trained with "
            "(for published weights configs/latent-diffusion/celebamask-hq.yaml) with --config, or config= in Python"
        )
    return checkpoint, checkpoint.config


def find_weights(path: str | Path, config: str | Path | Mapping[str, Any] | None = None) -> Checkpoint:
    """Read the weights of a model, and its config if there is one; see `find_model`.

    Raises:
        CheckpointError: no weights.
    """
    name = hub_name(path)
    file = _weight_file(Path(path) if name is None else download(name))
    checkpoint = read_checkpoint(file)
    if config is not None:
        checkpoint.config = read_config(config)
    elif not checkpoint.config:
        checkpoint.config = _config_near(file)
    return checkpoint


def _weight_file(path: Path) -> Path:
    """Return the last weights of a run folder, or `path` itself."""
    last = path / "checkpoints" / "last.ckpt"
    return last if last.is_file() else path


def _config_near(file: Path) -> dict[str, Any] | None:
    """Return the config of the run folder that a checkpoint is in, if it is in one."""
    run_config = file.parent.parent / "config.yaml"
    in_run = file.parent.name == "checkpoints" and run_config.is_file()
    return read_config(run_config) if in_run else None
