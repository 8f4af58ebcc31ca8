"""Loading a state dict into a model: keys that do not fit are named, with the likely reason."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.state_dict import (
    check_finite,
    has_ema,
    has_first_stage,
    load_weights,
    select_prefix,
    without_first_stage_file,
)
from ldm.modules.ema import EMA

RECORDED = Path(__file__).parents[1] / "golden" / "state_dict_official.json"


class Toy(nn.Module):
    """A model with the names of the parts that messages speak of."""

    def __init__(self, regions: int = 19, width: int = 4, codes: int = 8, use_ema: bool = False) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.diffusion_model = nn.Module()
        self.model.diffusion_model.time_embed = nn.Sequential(nn.Linear(width, 8), nn.SiLU(), nn.Linear(8, 8))
        self.model.diffusion_model.label_emb = nn.Embedding(regions, 8)
        self.model.diffusion_model.mlp_shared = nn.Sequential(nn.Conv2d(regions, 4, 3))
        self.model_ema = EMA(self.model) if use_ema else None
        self.first_stage_model = nn.Module()
        self.first_stage_model.quantize = nn.Module()
        self.first_stage_model.quantize.embedding = nn.Embedding(codes, 3)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: torch.randn(value.shape) for key, value in module.state_dict().items()}


def test_weights_arrive() -> None:
    model = Toy(use_ema=True)
    weights = _weights(model)
    load_weights(model, weights)
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key].to(value.dtype)), key


def test_half_precision_is_converted() -> None:
    model = nn.Linear(3, 2)
    weights = {key: value.half() for key, value in _weights(model).items()}
    load_weights(model, weights)
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, weights["weight"].float())


@pytest.mark.parametrize("damage", ["missing", "unexpected", "misshaped", "not finite"])
def test_error_changes_nothing(damage: str) -> None:
    model = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights = _weights(model)
    if damage == "missing":
        del weights["bias"]
    elif damage == "unexpected":
        weights["gain"] = torch.ones(1)
    elif damage == "misshaped":
        weights["bias"] = torch.ones(3)
    else:
        weights["bias"][0] = math.nan
    with pytest.raises(CheckpointError, match="gain" if damage == "unexpected" else "bias"):
        load_weights(model, weights)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_keys_are_listed_by_name_and_counted() -> None:
    model = nn.ModuleList(nn.Linear(2, 2) for _ in range(8))
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, {"0.weight": torch.zeros(2, 3), "other": torch.zeros(1)})
    message = str(caught.value)
    assert "15 of its 16 keys are missing" in message and "0.bias" in message and "and 10 more" in message
    assert "1 keys of the file are not in the model: other" in message
    assert "0.weight is [2, 3], expected [2, 2]" in message


def test_loose_loading_takes_what_fits_but_no_wrong_shape() -> None:
    model = nn.Linear(3, 2)
    load_weights(model, {"bias": torch.full((2,), 7.0), "other": torch.zeros(1)}, strict=False)
    assert model.bias.tolist() == [7.0, 7.0]
    with pytest.raises(CheckpointError, match="bias"):
        load_weights(model, {"bias": torch.zeros(3)}, strict=False)


def test_ignored_prefixes_may_be_missing_on_either_side() -> None:
    weights = _weights(Toy(use_ema=True))
    load_weights(Toy(), weights, ignore_prefixes=("model_ema.",))
    load_weights(Toy(use_ema=True), select_all_but(weights, "model_ema."), ignore_prefixes=("model_ema.",))
    with pytest.raises(CheckpointError, match="first_stage_model"):
        load_weights(Toy(), select_all_but(weights, "first_stage_model."), ignore_prefixes=("model_ema.",))


def select_all_but(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if not key.startswith(prefix)}


def _prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


REASONS: dict[str, tuple[nn.Module, Callable[[], dict[str, Tensor]], str]] = {
    "wrapped": (Toy(), lambda: _prefixed(_weights(Toy()), "module."), r"wrapped model: module\.\* fits"),
    "whole for part": (
        Toy().first_stage_model,
        lambda: _weights(Toy()),
        r"larger model: first_stage_model\.\* fits; use select_prefix",
    ),
    "part for whole": (
        Toy(),
        lambda: _weights(Toy().first_stage_model),
        "weights of the first stage alone; set first_stage_config's ckpt_path",
    ),
    "UNet alone": (
        Toy(),
        lambda: _weights(Toy().model.diffusion_model),
        "weights of the part model.diffusion_model",
    ),
    "no averages": (Toy(use_ema=True), lambda: _weights(Toy()), "no EMA weights"),
    "averages": (Toy(), lambda: _weights(Toy(use_ema=True)), "built with use_ema: false"),
    "regions": (
        Toy(),
        lambda: _weights(Toy(regions=35)),
        "number of regions.*: 35 in the file, 19 in the config",
    ),
    "codebook": (Toy(), lambda: _weights(Toy(codes=16)), "codebook size.*: 16 in the file, 8 in the config"),
    "width": (Toy(), lambda: _weights(Toy(width=6)), "model_channels.*: 6 in the file, 4 in the config"),
    "no first stage": (
        Toy(),
        lambda: select_all_but(_weights(Toy()), "first_stage_model."),
        "no first stage .*ckpt_path",
    ),
    "training loss": (
        nn.Linear(1, 1),
        lambda: {**_weights(nn.Linear(1, 1)), "loss.discriminator.weight": torch.zeros(1)},
        "ignore_prefixes",
    ),
    "first stage with its training loss, for whole": (
        Toy(),
        lambda: _weights(Toy().first_stage_model) | {"loss.logvar": torch.zeros(1)},
        "weights of the first stage alone",
    ),
    "whole with EMA copies, for part": (
        Toy().first_stage_model,
        lambda: _weights(Toy(use_ema=True)),
        r"larger model: first_stage_model\.\* fits",
    ),
    "first stage under its prefix, for whole": (
        Toy(),
        lambda: _prefixed(_weights(Toy().first_stage_model), "first_stage_model."),
        r"no UNet .model\.\*",
    ),
    "blocks": (
        nn.ModuleDict({"input_blocks": nn.ModuleList([nn.Linear(1, 1)])}),
        lambda: _weights(nn.ModuleDict({"input_blocks": nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])})),
        "num_res_blocks",
    ),
    "nothing": (nn.Linear(1, 1), dict, "holds no weights"),
    "stranger": (nn.Linear(1, 1), lambda: {"x.y": torch.zeros(1)}, "another model or config"),
}


@pytest.mark.parametrize("case", list(REASONS))
def test_likely_reason(case: str) -> None:
    model, weights, reason = REASONS[case]
    with pytest.raises(CheckpointError, match=f"Likely reason: .*{reason}"):
        load_weights(model, weights())


def test_missing_unet_is_not_blamed_on_its_blocks() -> None:
    model = nn.ModuleDict(
        {"model": nn.ModuleDict({"input_blocks": nn.Linear(1, 1)}), "other": nn.Linear(1, 1)}
    )
    with pytest.raises(CheckpointError, match="no UNet") as caught:
        load_weights(model, {"other.weight": torch.zeros(1, 1), "other.bias": torch.zeros(1)})
    assert "num_res_blocks" not in str(caught.value)


def test_one_reason_is_given_once() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_weights(Toy(), _weights(Toy(regions=35)))
    assert str(caught.value).count("number of regions") == 1


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]
)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_named(dtype: torch.dtype, bad: float) -> None:
    broken = torch.ones(3, 3, dtype=dtype)
    broken[1, 2] = bad
    with pytest.raises(CheckpointError, match=r"1 of 2 weights: here; "):
        check_finite({"fine": torch.ones(2), "here": broken})


def test_finite_numbers_pass() -> None:
    largest = torch.full((4,), torch.finfo(torch.float32).max)  # the sum would overflow
    check_finite({"a": largest, "b": torch.empty(0), "c": torch.arange(3), "d": torch.tensor(True)})
    check_finite({"e": torch.ones(2).to(torch.float8_e4m3fn)})


def test_part_of_a_state_dict() -> None:
    weights = _weights(Toy())
    assert list(select_prefix(weights, "first_stage_model.")) == ["quantize.embedding.weight"]
    assert has_first_stage(weights) and not has_ema(weights) and has_ema(_weights(Toy(use_ema=True)))
    assert not has_first_stage(select_all_but(weights, "first_stage_model."))


def _config(ckpt_path: Any) -> dict[str, Any]:
    first_stage = {"target": "x", "params": {"embed_dim": 3, "ckpt_path": ckpt_path}}
    return {"target": "y", "params": {"first_stage_config": first_stage, "timesteps": 10}}


def test_first_stage_file_is_not_needed_where_the_checkpoint_has_it() -> None:
    config = _config("nowhere/vq-f4.ckpt")
    plan = without_first_stage_file(config, _weights(Toy()))
    assert plan["params"]["first_stage_config"]["params"] == {"embed_dim": 3}
    assert plan["params"]["timesteps"] == 10
    assert config == _config("nowhere/vq-f4.ckpt"), "the caller's config changed"
    assert without_first_stage_file(OmegaConf.create(config), _weights(Toy())) == plan


def test_first_stage_file_is_kept_where_the_checkpoint_lacks_it(tmp_path: Path) -> None:
    weights = select_all_but(_weights(Toy()), "first_stage_model.")
    (tmp_path / "vq.ckpt").touch()
    config = _config(str(tmp_path / "vq.ckpt"))
    assert without_first_stage_file(config, weights) == config
    with pytest.raises(
        CheckpointError, match=r"nowhere/vq\.ckpt does not exist.*VQ-F4.*vq-f4\.zip, at nowhere/vq"
    ):
        without_first_stage_file(_config("nowhere/vq.ckpt"), weights)
    with pytest.raises(CheckpointError, match=r"no ckpt_path is set.*VQ-F4"):
        without_first_stage_file(_config(None), weights)


def test_config_without_a_first_stage_is_left_alone() -> None:
    config = {"target": "x", "params": {"embed_dim": 3}}
    assert without_first_stage_file(config, {}) == config
