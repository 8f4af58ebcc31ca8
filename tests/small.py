"""A model that is small enough for tests, with every part of the full one."""

import copy
from typing import Any

import torch
from torch.utils.data import default_collate

from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.targets import instantiate_from_config

DDCONFIG: dict[str, Any] = {
    "double_z": False,
    "z_channels": 3,
    "resolution": 16,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}

FIRST_STAGE: dict[str, Any] = {
    "target": "ldm.models.autoencoder.VQModel",
    "base_learning_rate": 1e-4,
    "params": {
        "embed_dim": 3,
        "n_embed": 2048,
        "ddconfig": DDCONFIG,
        "lossconfig": {"target": "ldm.modules.losses.VQLoss"},
    },
}

DIFFUSION: dict[str, Any] = {
    "target": "ldm.models.diffusion.LatentDiffusion",
    "base_learning_rate": 1e-4,
    "params": {
        "image_size": 4,
        "channels": 3,
        "probability_of_discard": 0.3,
        "sample_steps": 2,
        "cond_stage_config": {
            "target": "ldm.modules.style_encoder.StyleEncoder",
            "params": {
                "num_downsample": 2,
                "num_upsample": 1,
                "num_feat": 1,
                "num_mask_channels": 19,
                "output_dim": 8,
            },
        },
        "unet_config": {
            "target": "ldm.modules.unet.UNet",
            "params": {
                "image_size": 4,
                "in_channels": 3,
                "out_channels": 3,
                "model_channels": 64,
                "channel_mult": [1, 1],
                "num_res_blocks": 1,
                "attention_resolutions": [1],
                "num_head_channels": 32,
                "context_dim": 8,
                "num_classes": 19,
                "use_mask_attn": True,
            },
        },
        "first_stage_config": {
            "target": "ldm.models.autoencoder.VQModelInterface",
            "params": {"embed_dim": 3, "n_embed": 2048, "ddconfig": DDCONFIG},
        },
    },
}


def diffusion(**params: Any) -> dict[str, Any]:
    """Return the config of the small diffusion with some parameters replaced; `unet` merges into the UNet's."""
    config = copy.deepcopy(DIFFUSION)
    config["params"]["unet_config"]["params"] |= params.pop("unet", {})
    config["params"] |= params
    return config


def first_stage(**params: Any) -> dict[str, Any]:
    """Return the config of the small first stage with some parameters replaced."""
    config = copy.deepcopy(FIRST_STAGE)
    config["params"] |= params
    return config


def batch(count: int = 3, size: int = 16, seed: int = 1) -> dict[str, Any]:
    """Return a batch of synthetic faces."""
    faces = SyntheticFaces(size, count, seed)
    return default_collate([faces[i] for i in range(count)])


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter a random value, so that nothing is hidden behind a zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return module.eval()


def sensitive(config: dict[str, Any]) -> Any:
    """Build a diffusion with random weights whose pictures change visibly with style and noise."""
    torch.manual_seed(0)
    model = randomized(instantiate_from_config(config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("attn2.to_v.weight"):
                parameter *= 50  # an untrained network hardly listens to the style
        # Untrained predictions lead to latents of any size: entries for all of them.
        codebook = model.first_stage_model.quantize.embedding.weight
        codebook.normal_().mul_(torch.rand(len(codebook), 1).mul(5).exp())
        if model.model_ema is not None:
            model.model_ema.load_state_dict(type(model.model_ema)(model.model).state_dict())
    return model
