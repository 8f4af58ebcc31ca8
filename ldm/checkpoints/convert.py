"""First stages as files, whoever wrote them: ours, CompVis' .ckpt, folders of the diffusers library."""

import json
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
THEIRS = "diffusion_pytorch_model"  # what diffusers calls its weight files
TARGET = "ldm.models.autoencoder.VQModelInterface"  # CompVis' name, which is known here too
TRAINING = ("loss.", "model_ema.")  # keys that only training needs


@dataclass
class FirstStage:
    """A first stage's weights and what builds it.

    Attributes:
        weights: tensors under our names, which are CompVis'.
        params: `embed_dim`, `n_embed` and `ddconfig` of `ldm.models.autoencoder.VQModelInterface`.
        scale_factor: what the diffusion multiplies latents with, where the source says; else 1.
        origin: what it was read from, for people.
    """

    weights: dict[str, Tensor]
    params: dict[str, Any]
    scale_factor: float
    origin: str


def read_first_stage(path: str | Path, config: str | Path | None = None) -> FirstStage:
    """Read a first stage from whatever holds one.

    Args:
        path: a run folder, a folder or file of ours, CompVis' .ckpt, a whole diffusion's checkpoint, or a folder of
            diffusers: the model's own (config.json and weights) or a pipeline's with `vqvae/`.
        config: the YAML of a weight file that has none beside it. Without one the shapes of the weights tell all but
            the groups of the norms (32, as published) and the size of the pictures (256).

    Raises:
        CheckpointError: it holds no first stage with a codebook, or one that has no counterpart here.
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
    """Return the files that `write_first_stage` will write."""
    if to == "compvis":
        return [out, out.with_suffix(".yaml")]
    names = ("model.safetensors", "config.yaml") if to == "ours" else (f"{THEIRS}.safetensors", "config.json")
    return [out / name for name in names]


def write_first_stage(stage: FirstStage, to: Format, out: Path) -> Path:
    """Write a first stage.

    Args:
        stage: from `read_first_stage`.
        to: "ours" writes model.safetensors and config.yaml, "diffusers" config.json and its weight file, both into
            the folder `out`; "compvis" writes the file `out`, which ends in .ckpt, and the YAML beside it.
        out: see `to`.

    Returns:
        The weight file.

    Raises:
        CheckpointError: the format cannot express the network, or `out` has another suffix.
        WriteError: the disk is full or refuses.
    """
    if to == "compvis":
        return _write_compvis(stage, out)
    if out.suffix in (".ckpt", ".bin", ".pt", ".pth", ".safetensors"):
        raise CheckpointError(f"{out}: {to} is a folder with weights and config; name it without a suffix")
    if to == "ours":
        out.mkdir(parents=True, exist_ok=True)
        return write_checkpoint(out, stage.weights, _model_config(stage))
    weights, config = to_diffusers(stage.weights, stage.params, stage.scale_factor)
    file = write_checkpoint(out / f"{THEIRS}.safetensors", weights)
    text = json.dumps(config, indent=2) + "\n"
    write_text(out / "config.json", text)
    return file


def _write_compvis(stage: FirstStage, out: Path) -> Path:
    """Write CompVis' kind of .ckpt, and beside it the YAML."""
    groups = stage.params["ddconfig"].get("norm_groups", 32)
    if out.suffix != ".ckpt":
        raise CheckpointError(f"{out}: CompVis' code wants a file that ends in .ckpt; name it so")
    if groups != 32:
        raise CheckpointError(
            f"CompVis' networks normalise in 32 groups, this one has norm_groups: {groups}; keep it in our format"
        )
    # A clone of its own: torch.save writes all of the memory that a view shows a part of.
    saved = {"state_dict": {key: value.clone().contiguous() for key, value in stage.weights.items()}}
    size = sum(value.nbytes for value in saved["state_dict"].values())
    write_file(out, lambda file: torch.save(saved, file), size)
    config = OmegaConf.create(_model_config(stage))
    write_text(out.with_suffix(".yaml"), OmegaConf.to_yaml(config))
    return out


def _model_config(stage: FirstStage) -> dict[str, Any]:
    lossconfig = {"target": "torch.nn.Identity"}  # CompVis' code insists on one
    return {"model": {"target": TARGET, "params": {**stage.params, "lossconfig": lossconfig}}}


def _diffusers_folder(path: Path) -> Path | None:
    """Return the folder of diffusers that a path means, if it means one.

    Raises:
        CheckpointError: a pipeline without `vqvae/`.
    """
    if path.is_dir():
        for folder in (path, path / "vqvae"):
            if (folder / "config.json").is_file():
                return folder
        if (path / "model_index.json").is_file():
            raise CheckpointError(
                f"{path}: a pipeline of diffusers without a folder vqvae/; it has no {CLASS}"
            )
    elif path.name.startswith(THEIRS) and path.with_name("config.json").is_file():
        return path.parent
    return None


def _read_diffusers(folder: Path, path: Path) -> FirstStage:
    """Read a folder of diffusers, or the weight file `path` in it."""
    try:
        config = parse_json((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: not readable ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'}: holds a {type(config).__name__}; wanted settings")
    file = path if path.is_file() else _their_weights(folder)
    try:
        weights, params = from_diffusers(read_checkpoint(file).state_dict, config)
    except CheckpointError as error:
        raise type(error)(f"{folder}: {error}") from error
    # Not diffusers' default where it is silent: 0.18215 is that of another model, Stable Diffusion's.
    return FirstStage(weights, params, float(config.get("scaling_factor") or 1.0), f"diffusers' {CLASS}")


def _their_weights(folder: Path) -> Path:
    """Return the weight file of a folder of diffusers.

    Raises:
        CheckpointError: there is none, or several and none has the usual name.
    """
    usual = [folder / f"{THEIRS}{suffix}" for suffix in (".safetensors", ".bin")]
    found = sorted(file for file in folder.glob(f"{THEIRS}*") if file.suffix in (".safetensors", ".bin"))
    chosen = [file for file in usual if file.is_file()] or (found if len(found) == 1 else [])
    if not chosen:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(
            f"{folder}: wanted {THEIRS}.safetensors or .bin beside config.json; found {names}. Get the file, or "
            "name one of these"
        )
    return chosen[0]


def _read_ours(path: str | Path, config: str | Path | None) -> FirstStage:
    """Read a file or folder of ours or CompVis'."""
    checkpoint = find_weights(path, config)
    whole = has_first_stage(checkpoint.state_dict)
    weights = (
        select_prefix(checkpoint.state_dict, FIRST_STAGE)
        if whole
        else {key: value for key, value in checkpoint.state_dict.items() if not key.startswith(TRAINING)}
    )
    _check_kind(checkpoint.path, weights)
    model = plain((checkpoint.config or {}).get("model") or checkpoint.config or {})
    params = model.get("params") or {}
    scale = checkpoint.state_dict.get("scale_factor", params.get("scale_factor", 1.0))
    if whole:
        params = (params.get("first_stage_config") or {}).get("params") or {}
    if config is not None and "ddconfig" not in params:
        raise CheckpointError(f"{config}: describes no first stage (there is no ddconfig in it)")
    known = {key: params[key] for key in ("embed_dim", "n_embed", "ddconfig") if key in params}
    if len(known) < 3:
        try:
            known = params_of(weights)
        except (KeyError, IndexError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: an incomplete first stage; it lacks {error}"
            ) from error
    origin = "the first stage of a diffusion's checkpoint" if whole else "a first stage of ours or CompVis'"
    return FirstStage(weights, known, float(scale), origin)


def _check_kind(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for weights that are plainly something else, saying what."""
    if any(key.startswith("encoder.down_blocks.") for key in weights):
        raise CheckpointError(f"{file}: weights of diffusers; put their config.json beside them")
    if "encoder.conv_in.weight" not in weights:
        raise CheckpointError(
            f"{file}: no first stage in it, neither by itself nor under {FIRST_STAGE}*; wanted a VQ autoencoder"
        )
    if "quantize.embedding.weight" not in weights:
        raise CheckpointError(
            f"{file}: an autoencoder without a codebook (KL?); wanted one with, such as VQ-F4"
        )


def params_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return `embed_dim`, `n_embed` and `ddconfig` as the shapes of a first stage's weights tell them.

    Assumes 32 groups where there are norms, and pictures of 256x256, which decides nothing but the numbers by which
    `attn_resolutions` names levels.

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
    """Return how many numbers follow `stem` in the keys."""
    return len({key.split(".")[stem.count(".") + 1] for key in weights if key.startswith(f"{stem}.")})
