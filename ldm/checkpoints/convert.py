"""Read and write first stages: our folders, .ckpt files of CompVis, and folders of diffusers."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ldm.atomic_files import write_file, write_text
from ldm.checkpoints.config_files import parse_json
from ldm.checkpoints.diffusers_vq import CLASS, from_diffusers, to_diffusers
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint, write_checkpoint
from ldm.checkpoints.locate import find_weights
from ldm.checkpoints.model_size import shapes_of
from ldm.checkpoints.state_dict import (
    FIRST_STAGE,
    check_finite,
    fitting,
    has_first_stage,
    plain,
    select_prefix,
)
from ldm.targets import check_config

Format = Literal["ours", "diffusers", "compvis"]
FORMATS: tuple[Format, ...] = ("ours", "diffusers", "compvis")
DIFFUSERS_FILE = "diffusion_pytorch_model"  # name of weight files in diffusers, without suffix
TARGET = "ldm.models.autoencoder.VQModelInterface"  # in YAMLs of CompVis too
TRAINING = ("loss.", "model_ema.")  # keys that only training needs


@dataclass
class FirstStage:
    """Weights and config of a first stage.

    Attributes:
        weights: tensors by key; our keys are those of CompVis.
        params: `embed_dim`, `n_embed` and `ddconfig` of `ldm.models.autoencoder.VQModelInterface`.
        scale_factor: factor of the latents in the diffusion model; 1 if the file does not give it.
        origin: description of the file it was read from.
    """

    weights: dict[str, Tensor]
    params: dict[str, Any]
    scale_factor: float
    origin: str


def read_first_stage(path: str | Path, config: str | Path | None = None) -> FirstStage:
    """Read a first stage in any supported format.

    Args:
        path: a run folder, a folder or file of ours, a .ckpt of CompVis, a checkpoint of a whole diffusion
            model, or a folder of diffusers: of the model (config.json and weights) or of a pipeline (with
            `vqvae/`).
        config: YAML of a weight file without one. Without it, the shapes of the weights determine everything
            but the groups of the norms (assumed 32, as published) and the size of the images (assumed 256).

    Raises:
        CheckpointError: no first stage with a codebook, or an unsupported one.
    """
    folder = _diffusers_folder(Path(path))
    stage = _read_diffusers(folder, Path(path)) if folder else _read_ours(path, config)
    try:
        described = {"target": TARGET, "params": stage.params}
        check_config(described, "first stage")
        fitting(shapes_of(described), stage.weights)
        check_finite(stage.weights)
    except (TypeError, KeyError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return stage


def output_files(to: Format, out: Path) -> list[Path]:
    """Return the files that `write_first_stage` writes."""
    if to == "compvis":
        return [out, out.with_suffix(".yaml")]
    names = (
        ("model.safetensors", "config.yaml")
        if to == "ours"
        else (f"{DIFFUSERS_FILE}.safetensors", "config.json")
    )
    return [out / name for name in names]


def write_first_stage(stage: FirstStage, to: Format, out: Path) -> Path:
    """Write a first stage.

    Args:
        stage: from `read_first_stage`.
        to: "ours" for a folder with model.safetensors and config.yaml, "diffusers" for a folder with
            config.json and weights, "compvis" for a .ckpt file with a YAML beside it.
        out: the folder or file.

    Returns:
        The weight file.

    Raises:
        CheckpointError: a network that the format does not support, or another suffix.
        WriteError: the file cannot be written.
    """
    if to == "compvis":
        return _write_compvis(stage, out)
    if out.suffix in (".ckpt", ".bin", ".pt", ".pth", ".safetensors"):
        raise CheckpointError(
            f"{out}: format {to} is a folder with weights and config; use a name without suffix"
        )
    if to == "ours":
        out.mkdir(parents=True, exist_ok=True)
        return write_checkpoint(out, stage.weights, _model_config(stage))
    weights, config = to_diffusers(stage.weights, stage.params, stage.scale_factor)
    file = write_checkpoint(out / f"{DIFFUSERS_FILE}.safetensors", weights)
    text = json.dumps(config, indent=2) + "\n"
    write_text(out / "config.json", text)
    return file


def _write_compvis(stage: FirstStage, out: Path) -> Path:
    """Write a .ckpt of CompVis, and the YAML beside it."""
    groups = stage.params["ddconfig"].get("norm_groups", 32)
    if out.suffix != ".ckpt":
        raise CheckpointError(f"{out}: format compvis is a file; expected a name ending in .ckpt")
    if groups != 32:
        raise CheckpointError(
            f"networks of CompVis normalize in 32 groups, this one has norm_groups: {groups}; keep our format"
        )
    # Clones, because torch.save writes the whole storage of a view.
    saved = {"state_dict": {key: value.clone().contiguous() for key, value in stage.weights.items()}}
    size = sum(value.nbytes for value in saved["state_dict"].values())
    write_file(out, lambda file: torch.save(saved, file), size)
    config = OmegaConf.create(_model_config(stage))
    write_text(out.with_suffix(".yaml"), OmegaConf.to_yaml(config))
    return out


def _model_config(stage: FirstStage) -> dict[str, Any]:
    lossconfig = {"target": "torch.nn.Identity"}  # required by the code of CompVis
    return {"model": {"target": TARGET, "params": {**stage.params, "lossconfig": lossconfig}}}


def _diffusers_folder(path: Path) -> Path | None:
    """Return the folder of diffusers at a path, None for other formats.

    Raises:
        CheckpointError: a pipeline without `vqvae/`.
    """
    if path.is_dir():
        for folder in (path, path / "vqvae"):
            if (folder / "config.json").is_file():
                return folder
        if (path / "model_index.json").is_file():
            raise CheckpointError(f"{path}: a pipeline of diffusers without a {CLASS} (no folder vqvae/)")
    elif path.name.startswith(DIFFUSERS_FILE) and path.with_name("config.json").is_file():
        return path.parent
    return None


def _read_diffusers(folder: Path, path: Path) -> FirstStage:
    """Read a folder of diffusers, or the weight file `path` in it."""
    try:
        config = parse_json((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: not readable ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{folder / 'config.json'}: expected a mapping of settings, got a {type(config).__name__}"
        )
    file = path if path.is_file() else _diffusers_weights(folder)
    try:
        weights, params = from_diffusers(read_checkpoint(file).state_dict, config)
    except CheckpointError as error:
        raise type(error)(f"{folder}: {error}") from error
    # The default is not that of diffusers, 0.18215, which belongs to Stable Diffusion.
    scale = _scale(config.get("scaling_factor") or 1.0, f"{folder / 'config.json'}: scaling_factor")
    return FirstStage(weights, params, scale, f"a {CLASS} of diffusers")


def _scale(value: Any, name: str) -> float:
    """Return the factor of the latents; raise CheckpointError unless it is a positive number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise CheckpointError(f"{name} must be a positive number, got {value!r:.60}")
    return float(value)


def _diffusers_weights(folder: Path) -> Path:
    """Return the weight file in a folder of diffusers.

    Raises:
        CheckpointError: none, or several without one of the default name.
    """
    usual = [folder / f"{DIFFUSERS_FILE}{suffix}" for suffix in (".safetensors", ".bin")]
    found = sorted(
        file for file in folder.glob(f"{DIFFUSERS_FILE}*") if file.suffix in (".safetensors", ".bin")
    )
    chosen = [file for file in usual if file.is_file()] or (found if len(found) == 1 else [])
    if not chosen:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(
            f"{folder}: expected {DIFFUSERS_FILE}.safetensors or .bin beside config.json, found {names}; "
            "get the file, or name one of these"
        )
    return chosen[0]


def _read_ours(path: str | Path, config: str | Path | None) -> FirstStage:
    """Read a file or folder of ours or of CompVis."""
    checkpoint = find_weights(path, config)
    whole = has_first_stage(checkpoint.state_dict)
    weights = (
        select_prefix(checkpoint.state_dict, FIRST_STAGE)
        if whole
        else {key: value for key, value in checkpoint.state_dict.items() if not key.startswith(TRAINING)}
    )
    _check_kind(checkpoint.path, weights)
    params = _params_in(checkpoint.config or {})
    scale = _scale(
        checkpoint.state_dict.get("scale_factor", params.get("scale_factor", 1.0)),
        f"{checkpoint.path}: scale_factor",
    )
    if whole:
        params = _params_in({"model": params.get("first_stage_config")})
    if config is not None and "ddconfig" not in params:
        raise CheckpointError(f"{config}: not the config of a first stage, it has no ddconfig")
    names = ("embed_dim", "n_embed", "ddconfig")
    known: dict[str, Any] = {key: params[key] for key in names if key in params}
    if len(known) < 3:
        try:
            known = params_of(weights)
        except (KeyError, IndexError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: an incomplete first stage without {error}; download the file again"
            ) from error
    origin = "the first stage of a diffusion model" if whole else "a first stage of ours or of CompVis"
    return FirstStage(weights, known, scale, origin)


def _params_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` of a config or of its `model`; empty if it has none."""
    model = config.get("model") or config
    params = model.get("params") if isinstance(model, Mapping) else None
    return plain(params) if isinstance(params, Mapping) else {}


def _check_kind(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for weights of another kind."""
    if any(key.startswith("encoder.down_blocks.") for key in weights):
        raise CheckpointError(
            f"{file}: weights of diffusers without a config; put their config.json beside them"
        )
    if "encoder.conv_in.weight" not in weights:
        raise CheckpointError(
            f"{file}: no first stage, neither at the top nor under {FIRST_STAGE}*; expected a VQ autoencoder"
        )
    if "quantize.embedding.weight" not in weights:
        raise CheckpointError(
            f"{file}: an autoencoder without a codebook (KL?); expected one with, such as VQ-F4"
        )


def params_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return `embed_dim`, `n_embed` and `ddconfig` from the shapes of a first stage's weights.

    Assumes 32 groups in the norms, and images of 256x256, which only affects how `attn_resolutions` names the
    levels.

    Raises:
        KeyError: a weight is missing.
    """
    sizes = {key: tuple(value.shape) for key, value in weights.items()}
    z_channels, ch = sizes["decoder.conv_in.weight"][1], sizes["encoder.conv_in.weight"][0]
    levels = range(_count(weights, "encoder.down"))
    ddconfig = {
        "double_z": sizes["encoder.conv_out.weight"][0] == 2 * z_channels,
        "z_channels": z_channels,
        "resolution": 256,
        "in_channels": sizes["encoder.conv_in.weight"][1],
        "out_ch": sizes["decoder.conv_out.weight"][0],
        "ch": ch,
        "ch_mult": [sizes[f"encoder.down.{i}.block.0.conv1.weight"][0] // ch for i in levels],
        "num_res_blocks": _count(weights, "encoder.down.0.block"),
        "attn_resolutions": [256 // 2**i for i in levels if _count(weights, f"encoder.down.{i}.attn")],
        "dropout": 0.0,
    }
    if "encoder.norm_out.weight" not in weights:
        ddconfig["norm_groups"] = 0
    entries, embed_dim = sizes["quantize.embedding.weight"]
    return {"embed_dim": embed_dim, "n_embed": entries, "ddconfig": ddconfig}


def _count(weights: Mapping[str, Tensor], stem: str) -> int:
    """Return the number of modules `stem.0`, `stem.1`, ... in the keys."""
    return len({key.split(".")[stem.count(".") + 1] for key in weights if key.startswith(f"{stem}.")})
