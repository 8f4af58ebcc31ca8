"""Which paths are looked up on the Hugging Face hub."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.hf_transformers import load_transformer
from ldm.checkpoints.hub import hub_name
from ldm.checkpoints.io import read_checkpoint
from ldm.checkpoints.locate import find_model
from ldm.parsing import FaceParser
from ldm.pipeline import FacePipeline


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work offline in a folder with a run, a file and a broken link."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "faces").mkdir(parents=True)
    (tmp_path / "weights").touch()
    os.symlink("nowhere", tmp_path / "link")


@pytest.mark.parametrize("name", ["owner/name", "CompVis/ldm-celebahq-256", "a/b.c_d"])
def test_names_on_the_hub(name: str) -> None:
    assert hub_name(name) == name == hub_name(Path(name))


LOCAL = [
    *(
        "runs/faces",
        "runs/facse",
        "weights/x",
        "link/x",
        "name",
        "a/b/c",
        "/a/b",
        "./a",
        "../a",
        "a/",
        "~/a",
        "-a/b",
    ),
    *(
        "a/b.ckpt",
        "a/model.safetensors",
        "a/b.yaml",
        "a b/c",
        "a/ä",
        "a/b\n",
        "",
        "https://host/name",
        "a/..",
        "a\0/b",
    ),
]


@pytest.mark.parametrize("path", LOCAL)
def test_local_paths(path: str) -> None:
    assert hub_name(path) is None


def transformer(path: str) -> Any:
    return load_transformer("Dinov2Model", path, "expected a Dinov2Model")


@pytest.mark.parametrize(
    "load", [find_model, FacePipeline.from_pretrained, FaceParser.from_pretrained, transformer]
)
@pytest.mark.parametrize("path", ["runs/facse", "weights/x", "rnus/last.ckpt"])
def test_mistyped_paths_are_not_sent_to_the_hub(
    path: str, load: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match=f"^{path}: there is no such f(ile|older)"):
        load(path)
    assert "hub" not in capsys.readouterr().err


@pytest.mark.parametrize("load", [find_model, FaceParser.from_pretrained])
def test_lookup_is_announced_and_an_unreachable_hub_is_one_sentence(
    load: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match="owner/name") as caught:
        load("owner/name")
    assert "\n" not in str(caught.value)
    assert "owner/name: not a local path; looking it up on the Hugging Face hub\n" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_checkpoint("owner/name")
