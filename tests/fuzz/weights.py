"""Weight files with changed bytes, and with changed or added pickle opcodes."""

import io
import pickle
import pickletools
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ldm.checkpoints.formats import Checkpoint
from ldm.checkpoints.io import read_checkpoint, write_checkpoint
from tests.fuzz.changes import changed_bytes
from tests.fuzz.oracle import Case

OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
COMMANDS = (  # each makes the canary if anything in it is called
    b"cos\nsystem\n(S'touch canary'\ntR0",
    b"(S'touch canary'\nios\nsystem\n0",
    b'cbuiltins\neval\n(S\'open("canary", "w")\'\ntR0',
    b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'touch canary'\ntR0",
    b"(cos\nsystem\nS'touch canary'\no0",
    b"cpathlib\nPath\n(S'canary'\ntR0",
)


def byte_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Files of safetensors and torch. Both have checksums: what is read is what was written."""
    state = _state()
    write_checkpoint(folder / "sound.safetensors", state, {"model": {"target": "x"}})
    sound = {".safetensors": (folder / "sound.safetensors").read_bytes(), ".ckpt": _torch_file(state)}
    (folder / "sound.safetensors").unlink()
    number = 0
    while True:
        rng = random.Random(f"{seed} weights {number}")
        suffix = (".safetensors", ".ckpt")[number % 2]
        changed, change = changed_bytes(rng, sound[suffix])
        yield _case(folder / f"weights_{number}{suffix}", changed, f"{suffix}: {change}", _same(state))
        number += 1


def opcode_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Pickles of torch files, zip and legacy, with opcodes replaced, swapped, or calls added."""
    state = _state()
    files = {"zip": _torch_file(state), "legacy": _torch_file(state, legacy=True)}
    number = 0
    while True:
        rng = random.Random(f"{seed} opcodes {number}")
        kind = ("zip", "legacy")[number % 2]
        changed, change = (_changed_zip if kind == "zip" else _changed_legacy)(rng, files[kind])
        yield _case(folder / f"opcodes_{number}.ckpt", changed, f"{kind}: {change}", lambda read: None)
        number += 1


def _state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "model.weight": torch.randn(8, 8, generator=generator),
        "model.bias": torch.randn(8, generator=generator),
        "first_stage_model.quantize.embedding.weight": torch.randn(16, 3, generator=generator).half(),
    }


def _torch_file(state: dict[str, torch.Tensor], legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    content = {"state_dict": state, "epoch": 3, "global_step": 10}
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _same(state: dict[str, torch.Tensor]) -> Callable[[Checkpoint], None]:
    def right(read: Checkpoint) -> None:
        found = read.state_dict
        assert found.keys() == state.keys(), f"other keys: {', '.join(found)}"
        assert all(torch.equal(found[key], value) for key, value in state.items()), "other weights"

    return right


def _case(file: Path, content: bytes, change: str, right: Callable[[Checkpoint], None]) -> Case:
    read: list[Checkpoint] = []

    def call() -> None:
        file.write_bytes(content)
        try:
            read.append(read_checkpoint(file))
        finally:
            file.unlink()

    return Case(change, call, (file.name,), lambda: right(read[0]))


def _changed_zip(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Change the pickle in a zip and write its checksum anew."""
    buffer, change = io.BytesIO(), ""
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content, change = _changed_pickle(rng, content)
            new.writestr(name, content)
    return buffer.getvalue(), change


def _changed_legacy(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Change one of the pickles at the beginning of a legacy file: number, version, system, content."""
    stream = io.BytesIO(data)
    ends = [0]
    for _ in range(4):
        for opcode, _argument, _position in pickletools.genops(stream):
            if opcode.code.encode("latin-1") == pickle.STOP:
                break
        ends.append(stream.tell())
    part = rng.randrange(4)
    start, end = ends[part], ends[part + 1]
    content, change = _changed_pickle(rng, data[start:end])
    return data[:start] + content + data[end:], f"pickle {part}: {change}"


def _changed_pickle(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    positions = [position for _, _, position in pickletools.genops(data) if position is not None]
    at = rng.choice(positions)
    kinds = ("replace", "insert", "call", "call", "swap")
    kind = rng.choice(kinds if len(positions) > 4 else kinds[:-1])  # a number has too few to swap
    if kind == "call":
        command = rng.choice(COMMANDS)
        return data[:at] + command + data[at:], f"call of {command!r} at {at}"
    if kind == "swap":
        first, second = sorted(rng.sample(range(len(positions) - 2), 2))
        a, b, c, d = (positions[i] for i in (first, first + 1, second, second + 1))
        return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:], f"opcodes at {a} and {c} swapped"
    opcode = rng.choice(OPCODES)
    rest = data[at + 1 :] if kind == "replace" else data[at:]
    return data[:at] + opcode + rest, f"{kind} {opcode!r} at {at}"
