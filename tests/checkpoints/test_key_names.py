"""Key prefixes of wrapped models are removed."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ldm.checkpoints.io import build_model, read_checkpoint, write_checkpoint
from ldm.checkpoints.key_names import unwrap
from ldm.checkpoints.state_dict import load_weights
from tests import small
from tests.checkpoints.test_state_dict import Toy, _weights


@pytest.mark.parametrize(
    ("wrapped", "removed"),
    [
        ({"module.a.w": 1, "module.b": 2}, ["module."]),
        ({"_orig_mod.a.w": 1, "_orig_mod.b": 2}, ["_orig_mod."]),
        ({"module._orig_mod.a.w": 1, "module._orig_mod.b": 2}, ["_orig_mod.", "module."]),
        ({"_orig_mod.module.a.w": 1, "_orig_mod.module.b": 2}, ["_orig_mod.", "module."]),
        ({"module.module.a.w": 1, "module.module.b": 2}, ["module."]),
        ({"a._orig_mod.w": 1, "b": 2}, ["_orig_mod."]),
        ({"a._fsdp_wrapped_module._checkpoint_wrapped_module.w": 1, "b": 2}, None),
        ({"n_averaged": 9, "module.a.w": 1, "module.b": 2}, ["module."]),
        ({"a.w": 1, "b": 2}, []),
    ],
)
def test_prefixes(wrapped: dict[str, int], removed: list[str] | None) -> None:
    found, prefixes = unwrap(wrapped)  # type: ignore[arg-type]
    assert found == {"a.w": 1, "b": 2}
    assert removed is None or prefixes == removed


def test_names_that_wrappers_do_not_add_are_kept() -> None:
    for keys in (["module.a", "b"], ["a", "_orig_mod.a"], ["net.module.a"], ["n_averaged"]):
        assert unwrap(dict.fromkeys(keys, torch.zeros(1))) == (dict.fromkeys(keys, torch.zeros(1)), [])


def test_prefixes_inside_a_part_and_in_its_ema_copies() -> None:
    names = list(Toy(use_ema=True).state_dict())
    for insert in ("_orig_mod", "module"):
        wrapped = [
            key.replace("model.diffusion_model.", f"model.{insert}.diffusion_model.").replace(
                "model_ema.diffusion_model", f"model_ema.{insert}diffusion_model"
            )
            for key in names
        ]
        assert wrapped != names
        assert list(unwrap(dict.fromkeys(wrapped, torch.zeros(1)))[0]) == names


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, AveragedModel])
def test_weights_of_a_wrapped_module_load(wrap: type, tmp_path: Path) -> None:
    model, other = Toy(), Toy()
    model.load_state_dict(_weights(model))
    torch.save(wrap(model).state_dict(), tmp_path / "a.pt")
    with pytest.warns(UserWarning, match=r"a\.pt: removed (module|_orig_mod)\. from the keys"):
        checkpoint = read_checkpoint(tmp_path / "a.pt")
    load_weights(other, checkpoint.state_dict)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


def test_whole_model_with_ema_copies_wrapped_by_ddp(tmp_path: Path) -> None:
    config = small.diffusion()
    state = small.sensitive(config).state_dict()
    write_checkpoint(tmp_path / "a.safetensors", {f"module.{key}": value for key, value in state.items()})
    with pytest.warns(UserWarning, match="removed module"):
        checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    key = "model.diffusion_model.out.2.weight"
    assert torch.equal(build_model(config, checkpoint).state_dict()[key], state[key])
