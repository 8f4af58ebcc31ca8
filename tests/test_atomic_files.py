"""Writing files on a disk that is full, which a limit on the size of files stands for."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ldm.atomic_files import WriteError, write_at, write_file, write_text
from ldm.checkpoints.io import write_checkpoint
from ldm.data.datasets.latent_cache import write_latents
from ldm.data.images import save_png
from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.training.checkpointing import AtomicCheckpointIO
from tests.training.runs import only_run, train_here

LIMIT = 2000


@contextmanager
def full_disk(limit: int = LIMIT) -> Iterator[None]:
    """Let no file grow beyond `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


BIG = {"weight": torch.randn(100, 100)}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_file(path, lambda file: file.write(bytes(10_000))),
        lambda path: write_text(path, "x" * 10_000),
        lambda path: write_at(path, lambda partial: save_file(BIG, partial)),
        lambda path: write_file(path, lambda file: torch.save(BIG, file)),
        lambda path: write_checkpoint(path, BIG),
        lambda path: AtomicCheckpointIO().save_checkpoint({"state_dict": BIG}, path),
        lambda path: save_png(path, torch.rand(3, 100, 100)),
    ],
)
def test_a_full_disk_leaves_the_old_file_and_one_sentence(write, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    with full_disk(), pytest.raises(WriteError, match=rf"{path}: cannot be written: .*bytes.* are free"):
        write(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write(path)
    assert path.stat().st_size > LIMIT and list(tmp_path.iterdir()) == [path]


def test_more_than_there_is_room_for_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"it needs 1,000,000,000,000,000,000 bytes, .* are free"):
        write_file(tmp_path / "a", lambda file: pytest.fail("it was called"), 10**18)
    assert not list(tmp_path.iterdir())


def test_errors_of_reading_are_not_called_errors_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "a", lambda file: file.write((tmp_path / "b").read_bytes()))
    assert not list(tmp_path.iterdir())


def test_weights_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_at(tmp_path / "weights", lambda path: save_file({"w": torch.zeros(2)}, path))
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_latents_on_a_full_disk(tmp_path: Path) -> None:
    faces = SyntheticFaces(16, 2, 0)
    source = {"target": "x", "params": {}}
    with full_disk(), pytest.raises(WriteError, match=r"\.safetensors: cannot be written"):
        write_latents(tmp_path, faces, lambda x: x[:, :, ::4, ::4], source=source, first_stage="1")
    assert not list(tmp_path.iterdir())


def test_a_training_on_a_full_disk_ends_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_disk(6000):  # enough for config and metrics, too little for a checkpoint
        assert train_here(tmp_path, "lightning.trainer.max_steps=2", "lightning.trainer.max_epochs=null") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("main.py: error: ") and "last.ckpt: cannot be written" in error
    assert not [*(only_run(tmp_path) / "checkpoints").iterdir()]
