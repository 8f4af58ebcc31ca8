"""Flipped bits in files of weights are found, wherever they lie."""

import random
from pathlib import Path

import pytest
import torch

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint, write_checkpoint
from ldm.checkpoints.state_dict import load_weights
from tests.training.runs import only_run, train_here

WEIGHTS = {"weight": torch.randn(20, 30), "steps": torch.tensor(7), "half": torch.randn(64).bfloat16()}


def flipped(data: bytes, seed: int) -> bytes:
    """Return the bytes with one bit changed."""
    rng = random.Random(seed)
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[key], WEIGHTS[key]) for key in WEIGHTS)


@pytest.mark.parametrize("kind", ["a.ckpt", "a.safetensors"])
def test_no_flipped_bit_changes_a_weight(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "a.ckpt":
        torch.save({"state_dict": WEIGHTS}, path)
    else:
        write_checkpoint(path, WEIGHTS, {"model": {"target": "x"}})
    data = path.read_bytes()
    assert same(read_checkpoint(path).state_dict)
    refused = 0
    for seed in range(300):
        path.write_bytes(flipped(data, seed))
        try:
            found = read_checkpoint(path).state_dict
        except CheckpointError as error:
            refused += 1
            assert str(path) in str(error)
        else:  # the bit was one of the padding, or of a text beside the weights
            assert same(found), seed
    assert refused > 100


def test_no_flipped_bit_enters_a_resumed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_here(tmp_path, "lightning.trainer.max_epochs=1") == 0
    run = only_run(tmp_path)
    last = run / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    data = last.read_bytes()
    # Into a moment of the optimizer, which no check of the weights looks at.
    moment = saved["optimizer_states"][0]["state"][0]["exp_avg"].numpy().tobytes()
    place = data.index(moment) + 5
    last.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
    assert train_here(tmp_path, "lightning.trainer.max_epochs=2", resume=run) == 2
    error = capsys.readouterr().err
    assert "last.ckpt: damaged" in error and "checksum" in error and "best.ckpt" in error


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.complex64])
def test_a_weight_of_another_kind_is_refused(kind: torch.dtype) -> None:
    layer = torch.nn.Linear(3, 2)
    state = {"weight": torch.ones(2, 3).to(kind), "bias": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=rf"weight is {kind}.*torch\.float32"):
        load_weights(layer, state)
    load_weights(layer, {**state, "weight": torch.ones(2, 3).half()})
    counter = torch.nn.BatchNorm2d(2)
    counted = {**counter.state_dict(), "num_batches_tracked": torch.tensor(True)}
    with pytest.raises(CheckpointError, match="num_batches_tracked"):
        load_weights(counter, counted)
