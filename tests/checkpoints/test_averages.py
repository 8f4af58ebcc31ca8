"""EMA copies of weights in state dicts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.checkpoints.averages import use_ema_weights, weights_from_ema
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import build_model, read_checkpoint
from ldm.checkpoints.state_dict import load_weights
from ldm.targets import instantiate_from_config
from tests import small
from tests.checkpoints.test_state_dict import Toy, _weights

RECORDED = Path(__file__).parents[1] / "golden" / "state_dict_official.json"


def test_ema_copies_replace_the_weights_of_the_unet() -> None:
    model = Toy(use_ema=True)
    weights = _weights(model)
    chosen = use_ema_weights(weights)
    assert list(chosen) == list(weights)
    first = "model.diffusion_model.time_embed.0.weight"
    assert torch.equal(chosen[first], weights["model_ema.diffusion_modeltime_embed0weight"])
    for key, value in chosen.items():
        if key.startswith("model."):
            assert not torch.equal(value, weights[key]), key
        else:
            assert value is weights[key], key


def test_every_weight_of_the_published_model_has_an_ema_copy() -> None:
    shapes = json.loads(RECORDED.read_text())
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    chosen = use_ema_weights(weights)
    used = {id(value) for key, value in chosen.items() if key.startswith("model.")}
    averages = {id(value) for key, value in weights.items() if key.startswith("model_ema.")}
    counters = {id(weights["model_ema.decay"]), id(weights["model_ema.num_updates"])}
    assert used == averages - counters and len(used) == 801


def test_missing_copies_are_errors() -> None:
    with pytest.raises(CheckpointError, match=r"use_ema: false.*raw"):
        use_ema_weights(_weights(Toy()))
    weights = _weights(Toy(use_ema=True))
    del weights["model_ema.diffusion_modellabel_embweight"]
    with pytest.raises(CheckpointError, match=r"model\.diffusion_model\.label_emb\.weight.*raw"):
        use_ema_weights(weights)


def test_ambiguous_copies_are_errors() -> None:
    weights = {"model.a.b": torch.zeros(1), "model.ab": torch.ones(1), "model_ema.ab": torch.ones(1)}
    with pytest.raises(CheckpointError, match="share the name"):
        use_ema_weights(weights)


def ema_only(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.startswith("model.")}


def test_published_model_from_its_ema_copies_alone() -> None:
    shapes = json.loads(RECORDED.read_text())
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    names = [key for key in weights if not key.startswith("model_ema.")]
    found = weights_from_ema(ema_only(weights), names)
    expected = use_ema_weights(weights)
    assert all(found[name] is expected[name] for name in names)


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of a small diffusion whose EMA copies differ from its weights."""
    config = small.diffusion()
    state = dict(small.sensitive(config).state_dict())
    return config, {k: v + 1 if k.startswith("model_ema.") and v.ndim else v for k, v in state.items()}


def test_file_with_ema_copies_alone_builds_the_ema_model(trained: Any, tmp_path: Path) -> None:
    config, state = trained
    torch.save({"state_dict": state}, tmp_path / "whole.ckpt")
    torch.save({"state_dict": ema_only(state)}, tmp_path / "ema.ckpt")
    whole, ema = (read_checkpoint(tmp_path / f"{name}.ckpt") for name in ("whole", "ema"))
    expected, found = (build_model(config, file).state_dict() for file in (whole, ema))
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    with pytest.raises(CheckpointError, match=r'ema\.ckpt: .*only EMA weights.*weights="ema"'):
        build_model(config, ema, weights="raw")


def test_training_starts_from_ema_copies_alone(trained: Any, tmp_path: Path) -> None:
    _, state = trained
    torch.save({"state_dict": ema_only(state)}, tmp_path / "ema.ckpt")
    model = instantiate_from_config(small.diffusion(ckpt_path=str(tmp_path / "ema.ckpt")))
    copy = state["model_ema.diffusion_modelout2weight"]
    assert torch.equal(model.model.diffusion_model.out[2].weight, copy)
    with model.ema_scope():
        assert torch.equal(model.model.diffusion_model.out[2].weight, copy)


def test_copies_of_weights_that_the_model_lacks_are_an_error() -> None:
    state = ema_only(_weights(Toy(use_ema=True)))
    state["model_ema.diffusion_modelinput_blocks90weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"model_ema\.diffusion_modelinput_blocks90weight"):
        load_weights(Toy(), state, ignore_prefixes=("model_ema.",))
