"""What torch files may contain and be read: plain data, NumPy values, tensors of every kind."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.torch_files import read_torch_file


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_data_survives(zipped: bool, protocol: int, tmp_path: Path) -> None:
    saved = {
        "numbers": [1, -(2**70), 2.5, True, None, "ä", b"\xff\x00", (1, (2,))],
        "scalar": np.float64(2.5),
        "flag": np.bool_(True),
        "array": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">i4"),
        "sets": ({1, 2}, frozenset({3})),
        "path": Path("/a/b"),
        "types": (torch.float16, torch.Size([2, 3]), torch.device("cuda", 1)),
        "random": np.random.default_rng(0).bit_generator.state,
    }
    path = tmp_path / "a.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    read, skipped = read_torch_file(path)
    assert read["numbers"] == saved["numbers"]
    assert read["scalar"] == 2.5 and type(read["scalar"]) is float and read["flag"] is True
    for name in ("array", "columns", "big-endian"):
        np.testing.assert_array_equal(read[name], saved[name])
        assert read[name].dtype == saved[name].dtype
    assert read["sets"] == saved["sets"]
    assert read["path"] == "/a/b" and read["types"] == (torch.float16, (2, 3), "cuda:1")
    assert read["random"] == saved["random"]
    assert skipped == []


def test_numpy_1_names_are_read(tmp_path: Path) -> None:
    data = pickle.dumps({"x": np.float32(0.5), "y": np.arange(3)}, protocol=2)
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", data.replace(b"numpy._core", b"numpy.core"))
        archive.writestr("archive/version", "3\n")
    read, _ = read_torch_file(tmp_path / "a.pt")
    assert read["x"] == 0.5
    np.testing.assert_array_equal(read["y"], [0, 1, 2])


def test_numpy_array_of_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"x": np.array([Path, None], dtype=object)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="numbers"):
        read_torch_file(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_every_kind_survive(zipped: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = torch.randn(3, 4)
    tensors = {
        "base": base,
        "rows": base[1:],
        "turned": base.t(),
        "scalar": torch.tensor(True),
        "empty": torch.empty(0, 3),
        "parameter": nn.Parameter(torch.ones(3)),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "complex": torch.randn(2, dtype=torch.complex64),
        "int64": torch.arange(5),
    }
    path = tmp_path / "a.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(path).state_dict
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and read[name].stride() == tensor.stride(), name
        assert torch.equal(read[name], tensor), name
    assert read["rows"].untyped_storage().data_ptr() == read["base"].untyped_storage().data_ptr()
    read["base"].zero_()  # a private copy: the file stays as it is
    assert torch.equal(read_checkpoint(path).state_dict["base"], base)


def test_big_endian_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/byteorder", "big")
    with pytest.raises(CheckpointError, match="big-endian"):
        read_checkpoint(tmp_path / "a.pt")
