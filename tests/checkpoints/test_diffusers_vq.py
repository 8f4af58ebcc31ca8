"""First stages against the `VQModel` of diffusers, with random weights."""

from typing import Any

import pytest
import torch
from diffusers import VQModel
from omegaconf import OmegaConf
from torch import Tensor

from ldm.checkpoints.diffusers_vq import from_diffusers, to_diffusers
from ldm.checkpoints.errors import CheckpointError
from ldm.targets import instantiate_from_config
from tests import small
from tests.test_house import ROOT

WITH_ATTENTION = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
}


def theirs(**settings: Any) -> VQModel:
    """Build a small `VQModel` of diffusers with random weights; all numbers of its config differ."""
    config: dict[str, Any] = {
        "block_out_channels": (8, 16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 2,
        "latent_channels": 5,
        "vq_embed_dim": 3,
        "num_vq_embeddings": 60,
        "norm_num_groups": 4,
        "sample_size": 24,
    }
    return small.randomized(VQModel(**(config | settings)))


def ours(weights: dict[str, Tensor], params: dict[str, Any]) -> Any:
    """Build our model with exactly these weights."""
    model = instantiate_from_config({"target": "ldm.models.autoencoder.VQModelInterface", "params": params})
    model.load_state_dict(weights)
    return model.eval()


def assert_same(their: VQModel, our: Any, dtype: torch.dtype) -> None:
    """Compare encoding, quantization, and decoding with and without it."""
    image = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    their, our = their.to(dtype), our.to(dtype)
    with torch.no_grad():
        z = their.encode(image).latents
        pairs = [
            (our.encode(image), z),
            (our.quantize.quantize(z), their.quantize(z)[0]),
            (our.decode(z), their.decode(z).sample),
            (our.decode(z, force_not_quantize=True), their.decode(z, force_not_quantize=True).sample),
        ]
    for found, expected in pairs:
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{}, WITH_ATTENTION, {"vq_embed_dim": None, "layers_per_block": 1}])
def test_conversion_from_diffusers(settings: dict, dtype: torch.dtype) -> None:
    their = theirs(**settings)
    assert_same(their, ours(*from_diffusers(their.state_dict(), their.config)), dtype)


@pytest.mark.parametrize("attn_resolutions", [[], [16, 4]])
def test_conversion_to_diffusers(attn_resolutions: list[int]) -> None:
    sizes = {**small.DDCONFIG, "ch_mult": [1, 2, 2], "z_channels": 4, "attn_resolutions": attn_resolutions}
    params = {"embed_dim": 3, "n_embed": 60, "ddconfig": sizes}
    our = small.randomized(
        instantiate_from_config({"target": "ldm.models.autoencoder.VQModelInterface", "params": params})
    )
    weights, config = to_diffusers(our.state_dict(), params)
    their = VQModel.from_config(config).eval()
    their.load_state_dict(weights)
    assert_same(their, our, torch.float32)


@pytest.mark.parametrize("settings", [{}, WITH_ATTENTION])
def test_round_trip_is_exact(settings: dict) -> None:
    their = theirs(**settings)
    state, params = from_diffusers(their.state_dict(), their.config)
    weights, config = to_diffusers(state, params, their.config.scaling_factor)
    assert list(weights) == list(their.state_dict())
    assert all(torch.equal(weights[key], value) for key, value in their.state_dict().items())
    asked = {key: list(v) if isinstance(v, tuple) else v for key, v in their.config.items()}
    assert all(asked[key] == value for key, value in config.items() if key != "_class_name")
    again, same = from_diffusers(weights, config)
    assert same == params and all(torch.equal(again[key], value) for key, value in state.items())


def test_published_config_has_the_shapes_of_the_published_weights() -> None:
    """Keys and shapes of VQ-F4 as in CompVis/ldm-celebahq-256."""
    recipe = OmegaConf.to_container(OmegaConf.load(ROOT / "configs/autoencoder/vq-f4.yaml").model.params)
    with torch.device("meta"):
        our = instantiate_from_config(
            {
                "target": "ldm.models.autoencoder.VQModelInterface",
                "params": {key: recipe[key] for key in ("embed_dim", "n_embed", "ddconfig")},
            }
        )
        published = VQModel(
            block_out_channels=(128, 256, 512),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=2,
            latent_channels=3,
            num_vq_embeddings=8192,
            sample_size=256,
        )
    weights, config = to_diffusers(our.state_dict(), recipe)
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in published.state_dict().items()}
    _, params = from_diffusers(weights, config)
    assert params["ddconfig"] == recipe["ddconfig"] and params["n_embed"] == 8192


@pytest.mark.parametrize("as_convolutions", [False, True])
def test_old_names_of_attention(as_convolutions: bool) -> None:
    their, old = theirs(), {}
    for key, value in their.state_dict().items():
        for name, before in (("q", "query"), ("k", "key"), ("v", "value"), ("out.0", "proj_attn")):
            key = key.replace(f".to_{name}.", f".{before}.")
        matrix = as_convolutions and "attentions" in key and value.ndim == 2
        old[key] = value[:, :, None, None] if matrix else value
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in old
    state, _ = from_diffusers(old, their.config)
    today, _ = from_diffusers(their.state_dict(), their.config)
    assert state.keys() == today.keys() and all(torch.equal(state[key], today[key]) for key in state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_class_name": "AutoencoderKL"}, "_class_name must be VQModel, got 'AutoencoderKL'"),
        ({"act_fn": "mish"}, "act_fn must be .*got 'mish'"),
        ({"norm_type": "spatial"}, "norm_type must be .*got 'spatial'"),
        ({"lookup_from_codebook": True}, "lookup_from_codebook must be .*got True"),
        ({"mid_block_add_attention": False}, "mid_block_add_attention must be .*got False"),
        ({"block_out_channels": [8, 12, 32]}, "multiples of the first"),
        ({"block_out_channels": None}, "block_out_channels must be a list"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "at the same level of both"),
        ({"down_block_types": ["DownBlock2D"] * 3}, "down_block_types .*got .*DownBlock2D"),
        ({"layers_per_block": 1}, r"do not belong to a first stage with this config: encoder\.down_blocks"),
    ],
)
def test_unsupported_settings_of_diffusers(settings: dict, message: str) -> None:
    their = theirs()
    with pytest.raises(CheckpointError, match=message):
        from_diffusers(their.state_dict(), {**their.config, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm_groups": 0}, "norm_groups: 0"),
        ({"double_z": True}, "double_z: true"),
        ({"ch_mult": [2, 4]}, r"ch_mult: \[2, 4\]"),
    ],
)
def test_settings_that_diffusers_does_not_support(settings: dict, message: str) -> None:
    params = {"embed_dim": 3, "n_embed": 8, "ddconfig": {**small.DDCONFIG, **settings}}
    with pytest.raises(CheckpointError, match=f"does not support {message}"):
        to_diffusers({}, params)
