"""First stages as the diffusers library keeps them (its `VQModel`): names, shapes and config, there and back.

Both sides compute the same. diffusers counts the decoder's levels from the coarsest, stores attention's 1x1
convolutions as linear layers, and says the widths of the levels themselves where we say multiples of the first.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.state_dict import listed

CLASS = "VQModel"
PLAIN, ATTENTIVE = (
    ("DownEncoderBlock2D", "UpDecoderBlock2D"),
    ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"),
)

# Our layer -> theirs.
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
# Attention's layers in files from before diffusers 0.17.
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# What diffusers assumes where a config.json is silent, as far as only one value has a counterpart here.
ONLY = {
    "act_fn": ("silu", ("silu", "swish")),
    "norm_type": ("group", ("group",)),
    "mid_block_add_attention": (True, (True,)),
    "lookup_from_codebook": (False, (False,)),
}


def from_diffusers(
    weights: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Translate a diffusers `VQModel`.

    Args:
        weights: its state dict; attention's layers may have the names of old versions.
        config: its config.json.

    Returns:
        The weights under our names, views of the given ones; and `embed_dim`, `n_embed` and `ddconfig` of our model.

    Raises:
        CheckpointError: another class, a setting that has no counterpart here, or keys of something else.
    """
    params = _our_params(config)
    ddconfig = params["ddconfig"]
    names = _names(len(ddconfig["ch_mult"]), ddconfig["num_res_blocks"])
    renamed = _renamed({_today(key): value for key, value in weights.items()}, _inverse(names))
    return {
        key: value.reshape(*value.shape[:2], 1, 1) if key.endswith(LINEAR) else value
        for key, value in renamed.items()
    }, params


def to_diffusers(
    weights: Mapping[str, Tensor], params: Mapping[str, Any], scaling_factor: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Translate one of our first stages; the inverse of `from_diffusers`.

    Args:
        weights: the state dict, without a training loss.
        params: `embed_dim`, `n_embed` and `ddconfig`. Its dropout, which only training knows, is left out.
        scaling_factor: what the diffusion multiplies latents with, our `scale_factor`.

    Raises:
        CheckpointError: diffusers cannot express the network.
    """
    config = _their_config(params, scaling_factor)
    names = _names(len(params["ddconfig"]["ch_mult"]), params["ddconfig"]["num_res_blocks"])
    shaped = {
        key: value.reshape(value.shape[:2]) if key.endswith(LINEAR) else value
        for key, value in weights.items()
    }
    return _renamed(shaped, names), config


def _our_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of our model that a config.json describes.

    Raises:
        CheckpointError: it has no counterpart here, or a key is missing.
    """
    if config.get("_class_name", CLASS) != CLASS:
        raise CheckpointError(f"config.json describes a {config['_class_name']}; wanted a {CLASS}")
    for key, (default, possible) in ONLY.items():
        if config.get(key, default) not in possible:
            raise CheckpointError(
                f"config.json says {key}: {config[key]!r}, which our first stage has no counterpart for; it "
                f"computes what {possible[0]!r} means"
            )
    try:
        widths, z_channels = [int(width) for width in config["block_out_channels"]], config["latent_channels"]
        entries, blocks = config["num_vq_embeddings"], config["layers_per_block"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"config.json is not one of a {CLASS}: {error} is missing or wrong") from error
    if not widths or any(width % widths[0] for width in widths):
        raise CheckpointError(
            f"config.json says block_out_channels: {widths}; ours are whole multiples of the first"
        )
    resolution = config.get("sample_size") or 32
    ddconfig = {
        "double_z": False,
        "z_channels": z_channels,
        "resolution": resolution,
        "in_channels": config.get("in_channels", 3),
        "out_ch": config.get("out_channels", 3),
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": blocks,
        "attn_resolutions": _attn_resolutions(config, len(widths), resolution),
        "dropout": 0.0,
    }
    if (groups := config.get("norm_num_groups", 32)) != 32:  # what CompVis' networks have
        ddconfig["norm_groups"] = groups
    embed_dim = config.get("vq_embed_dim") or z_channels
    return {"embed_dim": embed_dim, "n_embed": entries, "ddconfig": ddconfig}


def _attn_resolutions(config: Mapping[str, Any], levels: int, resolution: int) -> list[int]:
    """Return the sides of the feature maps that get attention, from the types of a config.json's blocks.

    Raises:
        CheckpointError: other types, or encoder and decoder differ.
    """
    down = list(config.get("down_block_types", [PLAIN[0]] * levels))
    up = list(config.get("up_block_types", [PLAIN[1]] * levels))
    pairs = list(zip(down, reversed(up), strict=False))
    if len(down) != levels or len(up) != levels or any(pair not in (PLAIN, ATTENTIVE) for pair in pairs):
        raise CheckpointError(
            f"config.json says down_block_types: {down}, up_block_types: {up}; for {levels} levels ours has as many "
            f"of {PLAIN[0]} and {PLAIN[1]}, or, with attention at a level in both halves, of {ATTENTIVE[0]} and "
            f"{ATTENTIVE[1]}"
        )
    chosen = {resolution // 2**i for i, pair in enumerate(pairs) if pair == ATTENTIVE}
    if [resolution // 2**i in chosen for i in range(levels)] != [pair == ATTENTIVE for pair in pairs]:
        raise CheckpointError(f"config.json says sample_size: {resolution}, too small for {levels} levels")
    return sorted(chosen, reverse=True)


def _their_config(params: Mapping[str, Any], scaling_factor: float) -> dict[str, Any]:
    """Return the config.json of a first stage.

    Raises:
        CheckpointError: diffusers cannot express it.
    """
    ddconfig = params["ddconfig"]
    ch, mults, resolution = ddconfig["ch"], list(ddconfig["ch_mult"]), ddconfig["resolution"]
    groups = ddconfig.get("norm_groups", 32)
    for cannot, setting in (
        (groups == 0, "norm_groups: 0, a network without norms"),
        (ddconfig.get("double_z", True), "double_z: true, a mean and a variance"),
        (mults[0] != 1, f"ch_mult: {mults}, of which the first is not 1"),
    ):
        if cannot:
            raise CheckpointError(f"diffusers' {CLASS} cannot express {setting}; keep it in our format")
    attention = [resolution // 2**i in ddconfig.get("attn_resolutions", ()) for i in range(len(mults))]
    return {
        "_class_name": CLASS,
        "act_fn": "silu",
        "block_out_channels": [ch * mult for mult in mults],
        "down_block_types": [(ATTENTIVE if here else PLAIN)[0] for here in attention],
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
        "up_block_types": [(ATTENTIVE if here else PLAIN)[1] for here in reversed(attention)],
        "vq_embed_dim": params["embed_dim"],
    }


def _names(levels: int, blocks: int) -> dict[str, str]:
    """Return their name of each of our layers, those included that only some networks have."""
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
    """Return the names of the layers in one ResNet or attention block."""
    layers = ATTENTION if ".attentions." in theirs else RESNET
    return {f"{ours}.{here}": f"{theirs}.{there}" for here, there in layers.items()}


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {there: here for here, there in names.items()}


def _today(key: str) -> str:
    """Return a key of diffusers' with the name that attention's layers have today."""
    layer, _, kind = key.rpartition(".")
    block, _, name = layer.rpartition(".")
    return f"{block}.{OLD[name]}.{kind}" if ".attentions." in key and name in OLD else key


def _renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return weights under other names.

    Raises:
        CheckpointError: keys that have none; names the first.
    """
    parts = {key: key.rpartition(".") for key in weights}
    unknown = [key for key, (layer, _, _) in parts.items() if layer not in names]
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} of {len(weights)} keys belong to no first stage of this config: {listed(unknown)}"
        )
    return {f"{names[layer]}.{kind}": weights[key] for key, (layer, _, kind) in parts.items()}
