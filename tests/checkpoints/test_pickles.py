"""No weight file can run code: real attacks, each first shown to work on Python's own unpickler."""

import contextlib
import copyreg
import io
import os
import pickle
import random
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ldm.checkpoints import pickle_records
from ldm.checkpoints.errors import CheckpointError, UnsafePickle
from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.pickles import RestrictedUnpickler

Save = Callable[[Any, Path], None]


class Calls:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class TouchesOnState:
    """Writes the file that its state names while it is being unpickled: NEWOBJ and BUILD."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["marker"]).touch()


class TouchesOnNew:
    """Writes the file that its arguments name while it is being made: NEWOBJ_EX."""

    def __new__(cls, *, marker: str) -> "TouchesOnNew":
        Path(marker).touch()
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, str]]:
        return (), {"marker": self.marker}


def _save_zip(value: Any, path: Path) -> None:
    torch.save(value, path)


def _save_legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def _save_pickle(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def _save_raw(data: bytes, path: Path) -> None:
    """Put a handmade pickle into torch's zip container."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")


def _attacks(marker: Path) -> dict[str, tuple[Any, str]]:
    """Return values that write `marker` when unpickled, and the name that the error must give."""
    touch = f"touch {marker}"
    write = f"open({str(marker)!r}, 'w')"
    on_new = object.__new__(TouchesOnNew)
    on_new.marker = str(marker)
    nested = io.BytesIO()
    torch.save(Calls(os.system, touch), nested)
    return {
        "os.system": (Calls(os.system, touch), "posix.system|nt.system"),
        "eval": (Calls(eval, write), "eval"),
        "exec": (Calls(exec, write), "exec"),
        "subprocess": (Calls(subprocess.call, ["touch", str(marker)]), "subprocess.call"),
        "pickle in a pickle": (Calls(pickle.loads, pickle.dumps(Calls(os.system, touch))), "loads"),
        "torch file in a pickle": (
            Calls(torch.storage._load_from_bytes, nested.getvalue()),
            "_load_from_bytes",
        ),
        "rebuild with a function": (
            Calls(torch._tensor._rebuild_from_type_v2, os.system, str, (touch,), None),
            "system",
        ),
        "dictionary key": ({Calls(os.system, touch): 1}, "system"),
        "deep inside": ({"state_dict": {"a": [(1, {"b": Calls(os.system, touch)})]}}, "system"),
        "as an argument": (Calls(OrderedDict, [("a", Calls(os.system, touch))]), "system"),
        "state": (TouchesOnState(marker), "TouchesOnState"),
        "new with keywords": (on_new, "TouchesOnNew"),
    }


@pytest.mark.parametrize("save", [_save_zip, _save_legacy, _save_pickle])
@pytest.mark.parametrize("attack", list(_attacks(Path("x"))))
def test_attack_is_refused_and_nothing_runs(attack: str, save: Save, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "attack.ckpt"
    value, name = _attacks(marker)[attack]
    save(value, path)
    _check_refused(path, name, marker, pickle.dumps(value, protocol=2))


HANDMADE = {  # opcodes that no pickler writes today; MARKER is replaced
    "INST": (b"(S'touch MARKER'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'touch MARKER'\no.", "os.system"),
    "getattr": (
        b"c__builtin__\ngetattr\n(cimportlib\nimport_module\n(S'os'\ntRS'system'\ntR(S'touch MARKER'\ntR.",
        "importlib.import_module",
    ),
    "copyreg": (
        b"ccopy_reg\n_reconstructor\n(ctests.checkpoints.test_pickles\nTouchesOnState\nc__builtin__\nobject\nNtR"
        b"(dS'marker'\nS'MARKER'\nsb.",
        r"copyreg._reconstructor\(tests.checkpoints.test_pickles.TouchesOnState",
    ),
    "dotted name": (b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'touch MARKER'\nt\x52.", "os.system"),
}


@pytest.mark.parametrize("attack", list(HANDMADE))
def test_handmade_attack_is_refused(attack: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "attack.ckpt"
    data, name = HANDMADE[attack]
    data = data.replace(b"MARKER", str(marker).encode())
    _save_raw(data, path)
    _check_refused(path, name, marker, data)


def test_extension_code_is_refused_even_when_its_function_is_cached(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "attack.ckpt"
    data = b"\x80\x02\x82\xf0(S'touch " + str(marker).encode() + b"'\ntR."
    _save_raw(data, path)
    copyreg.add_extension(os.system.__module__, "system", 0xF0)
    try:
        _check_refused(path, "extension", marker, data)
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 0xF0)
        copyreg._extension_cache.pop(0xF0, None)  # type: ignore[attr-defined]


def _check_refused(path: Path, name: str, marker: Path, attack: bytes) -> None:
    """Check that the attack works on Python's unpickler, and that our reader refuses it without running it."""
    with contextlib.suppress(Exception):
        pickle.loads(attack)
    assert marker.exists(), "the attack does not work, so refusing it proves nothing"
    marker.unlink()
    with pytest.raises(UnsafePickle, match=name) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "torch.save(model.state_dict())" in str(caught.value)
    assert not marker.exists()


def test_state_cannot_be_set_on_functions(tmp_path: Path) -> None:
    path = tmp_path / "attack.ckpt"
    _save_raw(b"ctorch._utils\n_rebuild_tensor_v2\n(N(dS'__defaults__'\n(I1\ntstb.", path)
    before = pickle_records._tensor.__defaults__, torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(UnsafePickle, match="_rebuild_tensor_v2"):
        read_checkpoint(path)
    assert (pickle_records._tensor.__defaults__, torch._utils._rebuild_tensor_v2.__defaults__) == before


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_tensor_with_hooks_is_refused(tmp_path: Path) -> None:
    hooks = OrderedDict({0: os.system})
    storage = torch.zeros(2).storage()
    torch.save(
        {"w": Calls(torch._utils._rebuild_tensor_v2, storage, 0, (2,), (1,), True, hooks)}, tmp_path / "a.pt"
    )
    with pytest.raises(CheckpointError, match="hooks"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("save", [_save_zip, _save_legacy])
def test_whole_model_is_refused_by_name(save: Save, tmp_path: Path) -> None:
    save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UnsafePickle, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_archive_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "program.pt")
    with pytest.raises(UnsafePickle, match="TorchScript"):
        read_checkpoint(tmp_path / "program.pt")


def test_checkpoint_with_a_program_beside_its_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("a/constants.pkl", pickle.dumps(()))
    with pytest.raises(UnsafePickle, match="TorchScript"):
        read_checkpoint(tmp_path / "a.pt")


def test_only_functions_of_one_file_can_be_called() -> None:
    harmless = {tuple, set, frozenset}
    for name, build in pickle_records.BUILDERS.items():
        assert build in harmless or build.__module__ == "ldm.checkpoints.pickle_records", name


def test_every_opcode_that_calls_is_replaced() -> None:
    own = {
        code
        for code, handler in RestrictedUnpickler.dispatch.items()
        if handler is not pickle._Unpickler.dispatch[code]  # type: ignore[attr-defined]
    }
    calling = ("REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "EXT1", "EXT2", "EXT4")
    assert {getattr(pickle, name)[0] for name in calling} <= own


@pytest.mark.parametrize("save", [_save_zip, _save_legacy])
def test_broken_bytes_give_the_one_error_or_the_weights(save: Save, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save({"state_dict": {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(3)}, "epoch": 1}, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(1, len(whole))])])
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            weights = read_checkpoint(path).state_dict
        except CheckpointError as error:
            refused += 1
            assert str(path) in str(error)
        else:
            assert all(isinstance(value, torch.Tensor) for value in weights.values())
    assert refused > 100


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    storage = torch.zeros(4).storage()
    for size, stride, offset in (((5,), (1,), 0), ((2, 2), (3, 1), 0), ((1,), (1,), 4), ((2**40,), (0,), 0)):
        call = Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
        torch.save({"w": call}, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match=r"beyond|larger than the file"):
            read_checkpoint(tmp_path / "a.pt")


def test_lists_that_hold_each_other_end(tmp_path: Path) -> None:
    bomb: list[Any] = [1]
    for _ in range(60):
        bomb = [bomb, bomb]  # 2^60 items if every one were walked
    bomb.append(bomb)
    torch.save({"w": torch.zeros(2), "x": bomb}, tmp_path / "a.pt")
    checkpoint = read_checkpoint(tmp_path / "a.pt")
    assert list(checkpoint.state_dict) == ["w"]
