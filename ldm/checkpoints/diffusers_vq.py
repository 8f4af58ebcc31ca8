"""Convert first stages from and to the `VQModel` of diffusers: key names, shapes and config.

Both networks compute the same. diffusers counts the decoder's levels from the coarsest, stores the 1x1
convolutions of attention as linear layers, and gives the width of each level where we give multiples of the
first.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.key_names import listed

CLASS = "VQModel"
PLAIN = ("DownEncoderBlock2D", "UpDecoderBlock2D")
ATTENTION_BLOCKS = ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D")

# Our layer -> layer in diffusers.
RESNET = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}
SHARED = ("quant_conv", "post_quant_conv", "quantize.embedding")
LINEAR = tuple(f".{name}.weight" for name in ("q", "k", "v", "proj_out"))  # 1x1 convolutions here
# Layers of attention in files before diffusers 0.17.
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# Settings with one supported value: (default of diffusers, supported values).
SUPPORTED = {
    "act_fn": ("silu", ("silu", "swish")),
    "norm_type": ("group", ("group",)),
    "mid_block_add_attention": (True, (True,)),
    "lookup_from_codebook": (False, (False,)),
}
# Settings that are integers: the largest value.
LARGEST = {
    "in_channels": 65_536,
    "out_channels": 65_536,
    "latent_channels": 65_536,
    "layers_per_block": 64,
    "norm_num_groups": 65_536,
    "num_vq_embeddings": 2**24,
    "sample_size": 16_384,
    "vq_embed_dim": 65_536,
}


def from_diffusers(
    weights: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert a `VQModel` of diffusers.

    Args:
        weights: its state dict, of any version of diffusers.
        config: its config.json.

    Returns:
        The weights under our names, as views; and `embed_dim`, `n_embed` and `ddconfig` of our model.

    Raises:
        CheckpointError: another class, an unsupported setting, or unknown keys.
    """
    params = _our_params(config)
    ddconfig = params["ddconfig"]
    names = _names(len(ddconfig["ch_mult"]), ddconfig["num_res_blocks"])
    renamed = _renamed({_new_name(key): value for key, value in weights.items()}, _inverse(names))
    return {
        key: value.reshape(*value.shape[:2], 1, 1) if key.endswith(LINEAR) else value
        for key, value in renamed.items()
    }, params


def to_diffusers(
    weights: Mapping[str, Tensor], params: Mapping[str, Any], scaling_factor: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert one of our first stages; the inverse of `from_diffusers`.

    Args:
        weights: the state dict, without the training loss.
        params: `embed_dim`, `n_embed` and `ddconfig`; its dropout is not converted.
        scaling_factor: factor of the latents in the diffusion model, our `scale_factor`.

    Raises:
        CheckpointError: a network that diffusers does not support.
    """
    config = _diffusers_config(params, scaling_factor)
    names = _names(len(params["ddconfig"]["ch_mult"]), params["ddconfig"]["num_res_blocks"])
    shaped = {
        key: value.reshape(value.shape[:2]) if key.endswith(LINEAR) else value
        for key, value in weights.items()
    }
    return _renamed(shaped, names), config


def _our_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of our model for a config.json.

    Raises:
        CheckpointError: an unsupported or missing setting.
    """
    if config.get("_class_name", CLASS) != CLASS:
        raise CheckpointError(f"config.json: _class_name must be {CLASS}, got {config['_class_name']!r:.60}")
    for key, (default, supported) in SUPPORTED.items():
        if config.get(key, default) not in supported:
            raise CheckpointError(
                f"config.json: {key} must be {supported[0]!r}, which is what our first stage computes, got "
                f"{config[key]!r:.60}"
            )
    widths = config.get("block_out_channels")
    if not isinstance(widths, list | tuple) or not 0 < len(widths) <= 16 or not all(map(_is_width, widths)):
        raise CheckpointError(f"config.json: block_out_channels must be a list of widths, got {widths!r:.60}")
    if any(width % widths[0] for width in widths):
        raise CheckpointError(
            f"config.json: block_out_channels must be multiples of the first, got {list(widths)}"
        )
    resolution, z_channels = _integer(config, "sample_size", 32), _integer(config, "latent_channels")
    ddconfig = {
        "double_z": False,
        "z_channels": z_channels,
        "resolution": resolution,
        "in_channels": _integer(config, "in_channels", 3),
        "out_ch": _integer(config, "out_channels", 3),
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": _integer(config, "layers_per_block"),
        "attn_resolutions": _attn_resolutions(config, len(widths), resolution),
        "dropout": 0.0,
    }
    if (groups := _integer(config, "norm_num_groups", 32)) != 32:  # the default of our networks
        ddconfig["norm_groups"] = groups
    embed_dim = _integer(config, "vq_embed_dim", z_channels)
    return {"embed_dim": embed_dim, "n_embed": _integer(config, "num_vq_embeddings"), "ddconfig": ddconfig}


def _is_width(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 65_536


def _integer(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Return an integer setting, the default if it is missing or null."""
    value = default if config.get(key) is None else config[key]
    if type(value) is not int or not 1 <= value <= LARGEST[key]:
        raise CheckpointError(
            f"config.json: {key} must be an integer in [1, {LARGEST[key]:,}], got {value!r:.60}"
        )
    return value


def _attn_resolutions(config: Mapping[str, Any], levels: int, resolution: int) -> list[int]:
    """Return the sizes of the feature maps with attention, from the block types of a config.json.

    Raises:
        CheckpointError: unsupported types, or encoder and decoder differ.
    """
    down, up = (
        config.get(f"{half}_block_types", [PLAIN[i]] * levels) for i, half in enumerate(("down", "up"))
    )
    if not isinstance(down, list | tuple) or not isinstance(up, list | tuple):
        raise CheckpointError(
            f"config.json: down_block_types and up_block_types must be lists, got {down!r:.60} and {up!r:.60}"
        )
    pairs = list(zip(down, reversed(up), strict=False))
    if (
        len(down) != levels
        or len(up) != levels
        or any(pair not in (PLAIN, ATTENTION_BLOCKS) for pair in pairs)
    ):
        raise CheckpointError(
            f"config.json: down_block_types and up_block_types must have {levels} entries, {PLAIN[0]} and {PLAIN[1]}, "
            f"or {ATTENTION_BLOCKS[0]} and {ATTENTION_BLOCKS[1]} at the same level of both, got {down!r:.100} and "
            f"{up!r:.100}"
        )
    chosen = {resolution // 2**i for i, pair in enumerate(pairs) if pair == ATTENTION_BLOCKS}
    if [resolution // 2**i in chosen for i in range(levels)] != [pair == ATTENTION_BLOCKS for pair in pairs]:
        raise CheckpointError(f"config.json: sample_size {resolution} is too small for {levels} levels")
    return sorted(chosen, reverse=True)


def _diffusers_config(params: Mapping[str, Any], scaling_factor: float) -> dict[str, Any]:
    """Return the config.json of one of our first stages.

    Raises:
        CheckpointError: a network that diffusers does not support.
    """
    ddconfig = params["ddconfig"]
    ch, mults, resolution = ddconfig["ch"], list(ddconfig["ch_mult"]), ddconfig["resolution"]
    groups = ddconfig.get("norm_groups", 32)
    for unsupported, setting in (
        (groups == 0, "norm_groups: 0 (no norms)"),
        (ddconfig.get("double_z", True), "double_z: true (mean and variance)"),
        (mults[0] != 1, f"ch_mult: {mults} (the first must be 1)"),
    ):
        if unsupported:
            raise CheckpointError(f"{CLASS} of diffusers does not support {setting}; keep our format")
    attention = [resolution // 2**i in ddconfig.get("attn_resolutions", ()) for i in range(len(mults))]
    return {
        "_class_name": CLASS,
        "act_fn": "silu",
        "block_out_channels": [ch * mult for mult in mults],
        "down_block_types": [(ATTENTION_BLOCKS if here else PLAIN)[0] for here in attention],
        "in_channels": ddconfig["in_channels"],
        "latent_channels": ddconfig["z_channels"],
        "layers_per_block": ddconfig["num_res_blocks"],
        "lookup_from_codebook": False,
        "mid_block_add_attention": True,
        "norm_num_groups": groups,
        "norm_type": "group",
        "num_vq_embeddings": params["n_embed"],
        "out_channels": ddconfig["out_ch"],
        "sample_size": resolution,
        "scaling_factor": scaling_factor,
        "up_block_types": [(ATTENTION_BLOCKS if here else PLAIN)[1] for here in reversed(attention)],
        "vq_embed_dim": params["embed_dim"],
    }


def _names(levels: int, blocks: int) -> dict[str, str]:
    """Map our layers to those of diffusers, including layers that only some networks have."""
    names = {name: name for name in SHARED}
    for half, ours, theirs, count, step in (
        ("encoder", "down", "down_blocks", blocks, "downsample"),
        ("decoder", "up", "up_blocks", blocks + 1, "upsample"),
    ):
        names |= {f"{half}.{here}": f"{half}.{there}" for here, there in ENDS.items()}
        for here, there in MIDDLE.items():
            names |= _below(f"{half}.mid.{here}", f"{half}.mid_block.{there}")
        for i in range(levels):
            here = f"{half}.{ours}.{i}"
            there = f"{half}.{theirs}.{i if half == 'encoder' else levels - 1 - i}"
            for j in range(count):
                names |= _below(f"{here}.block.{j}", f"{there}.resnets.{j}")
                names |= _below(f"{here}.attn.{j}", f"{there}.attentions.{j}")
            names[f"{here}.{step}.conv"] = f"{there}.{step}rs.0.conv"
    return names


def _below(ours: str, theirs: str) -> dict[str, str]:
    """Map the layers of one ResNet or attention block."""
    layers = ATTENTION if ".attentions." in theirs else RESNET
    return {f"{ours}.{here}": f"{theirs}.{there}" for here, there in layers.items()}


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {there: here for here, there in names.items()}


def _new_name(key: str) -> str:
    """Return a key of diffusers with the present names of the layers of attention."""
    layer, _, kind = key.rpartition(".")
    block, _, name = layer.rpartition(".")
    return f"{block}.{OLD[name]}.{kind}" if ".attentions." in key and name in OLD else key


def _renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename the layers of a state dict.

    Raises:
        CheckpointError: unknown layers.
    """
    parts = {key: key.rpartition(".") for key in weights}
    unknown = [key for key, (layer, _, _) in parts.items() if layer not in names]
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} of {len(weights)} keys do not belong to a first stage with this config: {listed(unknown)}"
        )
    return {f"{names[layer]}.{kind}": weights[key] for key, (layer, _, kind) in parts.items()}
