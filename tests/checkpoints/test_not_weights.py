"""Files that are not weights are refused, with what they are."""

import gzip
import os
import pickle
import socket
import zipfile
from pathlib import Path

import pytest
import torch

from ldm.checkpoints.config_files import read_yaml
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint, write_checkpoint
from ldm.checkpoints.locate import find_model
from ldm.checkpoints.torch_files import verify_checksums
from ldm.targets import ConfigError

NOT_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "file is empty"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "web page": (b"\n <!DOCTYPE html><html><title>Quota exceeded</title>", "web page"),
    "text": (b"Access denied\nfor you", "text file that starts with 'Access denied for you'"),
    "old pickle": (b"cos\nsystem\n(S'true'\ntR.", "text file"),
    "gzip": (gzip.compress(b"x"), "compressed archive"),
    "tar": (b"storages".ljust(257, b"\0") + b"ustar  \0".ljust(300, b"\0"), "tar archive"),
    "noise": (bytes(range(200, 256)), "not a weight file .it starts with c8 c9"),
    "pickle": (pickle.dumps({"w": 1}), "not one of torch.save"),
    "pickle cut off": (pickle.dumps({"w": 1})[:-4], "damaged"),
    "safetensors cut off": ((100).to_bytes(8, "little") + b'{"w":', "damaged safetensors file of 13 bytes"),
}


@pytest.mark.parametrize("name", list(NOT_WEIGHTS))
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_other_files_are_named(name: str, suffix: str, tmp_path: Path) -> None:
    data, message = NOT_WEIGHTS[name]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_truncated_file_is_an_error(tmp_path: Path) -> None:
    weights = {"weight": torch.randn(2, 3), "steps": torch.tensor(3)}
    for name, zipped in (("zip.ckpt", True), ("legacy.ckpt", False), ("ours.safetensors", None)):
        path = tmp_path / name
        if zipped is None:
            write_checkpoint(path, weights)
        else:
            torch.save(weights, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for length in range(1, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match=name):
                read_checkpoint(path)


def test_zip_without_a_torch_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "vq-f4.zip", "w") as archive:
        archive.writestr("model.ckpt", b"x")
    with pytest.raises(CheckpointError, match=r"model\.ckpt"):
        read_checkpoint(tmp_path / "vq-f4.zip")


def _special(folder: Path) -> dict[str, Path]:
    """Return files that are not regular; the pipe holds text, so that a reader that opens it does not block."""
    os.mkfifo(folder / "pipe.ckpt")
    os.write(os.open(folder / "pipe.ckpt", os.O_RDWR), b"text " * 200)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.ckpt"))
    return {
        "a named pipe": folder / "pipe.ckpt",
        "a socket": folder / "socket.ckpt",
        "a device": Path("/dev/zero"),
    }


def test_pipes_sockets_and_devices_are_refused(tmp_path: Path) -> None:
    for kind, path in _special(tmp_path).items():
        with pytest.raises(CheckpointError, match=f"{path} is {kind}, expected a weight file"):
            read_checkpoint(path)
        with pytest.raises(CheckpointError, match=f"{path} is {kind}"):
            verify_checksums(path)
        with pytest.raises(ConfigError, match=f"{path} is {kind}, expected a YAML file"):
            read_yaml(path)
        torch.save({"w": torch.zeros(1)}, tmp_path / "weights.pt")
        with pytest.raises(CheckpointError, match=f"{path} is {kind}"):
            find_model(tmp_path / "weights.pt", path)


def test_pipe_in_place_of_a_folder_s_files(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.yaml"):
        folder = tmp_path / f"folder of {Path(name).stem}"
        write_checkpoint(folder, {"w": torch.zeros(1)}, {"model": {"target": "x"}})
        (folder / name).unlink()
        os.mkfifo(folder / name)
        os.write(os.open(folder / name, os.O_RDWR), b"text " * 200)
        with pytest.raises(CheckpointError, match=f"{name} is a named pipe"):
            read_checkpoint(folder)


def test_name_that_the_file_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        read_checkpoint(tmp_path / ("a" * 400))
