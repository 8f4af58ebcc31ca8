"""Models are saved with a card, uploaded to a hub and loaded from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from ldm.checkpoints.errors import CheckpointError
from ldm.data.labels import CELEBAMASK_HQ
from ldm.pipeline import FacePipeline
from tests import small
from tests.pipeline.hub_server import Hub, hub

ROOT = Path(__file__).resolve().parents[2]
UPLOAD = """
import sys
from ldm.pipeline import FacePipeline
pipe = FacePipeline.from_pretrained(sys.argv[1], device="cpu")
print(pipe.push_to_hub("someone/faces", token="hf_x", **eval(sys.argv[2])))
"""
DOWNLOAD = """
import sys
import torch
from ldm.pipeline import FacePipeline
torch.save(FacePipeline.from_pretrained("someone/faces", device="cpu").model.state_dict(), sys.argv[1])
"""


@pytest.fixture
def pipe() -> FacePipeline:
    config = small.diffusion(use_ema=False)
    data = {"params": {"train": {"params": {"size": 16}}}}
    return FacePipeline(
        small.sensitive(config), CELEBAMASK_HQ, (16, 16), config={"model": config, "data": data}
    )


@pytest.fixture
def server() -> Hub:
    with hub() as running:
        yield running


def run(code: str, server: Hub, tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own, since huggingface_hub reads its endpoint when it is imported."""
    place = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=os.environ | place | {"HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_saved_folder_loads_with_the_same_weights(pipe: FacePipeline, tmp_path: Path) -> None:
    folder = pipe.save_pretrained(tmp_path / "mine", dtype=torch.float32, license="mit", datasets=["a/b"])
    again = FacePipeline.from_pretrained(folder, device="cpu", precision="float32")
    assert again.fingerprint == pipe.fingerprint and again.size == (16, 16)
    card = (folder / "README.md").read_text()
    facts = yaml.safe_load(card.split("---")[1])
    assert facts["license"] == "mit" and facts["datasets"] == ["a/b"]
    assert facts["pipeline_tag"] == "image-to-image" and facts["library_name"] == "sca-dm"
    assert "16 x 16 pixels, 19 regions" in card


def test_a_card_that_somebody_wrote_is_kept(pipe: FacePipeline, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_pipeline_without_config_cannot_be_saved(pipe: FacePipeline, tmp_path: Path) -> None:
    pipe.config = None
    with pytest.raises(CheckpointError, match=r"has no config; use FacePipeline\.from_pretrained"):
        pipe.save_pretrained(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_model_is_uploaded_and_loaded_by_its_name(pipe: FacePipeline, server: Hub, tmp_path: Path) -> None:
    folder = pipe.save_pretrained(tmp_path / "mine", license="mit")
    done = run(UPLOAD, server, tmp_path, str(folder), "{'license': 'mit'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(f"{server.address}/someone/faces/commit/")
    assert set(server.models["someone/faces"]) >= {"model.safetensors", "config.yaml", "README.md"}
    assert 'from_pretrained("someone/faces")' in server.models["someone/faces"]["README.md"].decode()
    done = run(DOWNLOAD, server, tmp_path, str(tmp_path / "state.pt"))
    assert done.returncode == 0, done.stderr
    assert "looking it up on the Hugging Face hub" in done.stderr
    found = torch.load(tmp_path / "state.pt")
    expected = FacePipeline.from_pretrained(folder, device="cpu").model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_an_invalid_card_is_refused_before_anything_is_created(
    pipe: FacePipeline, server: Hub, tmp_path: Path
) -> None:
    folder = pipe.save_pretrained(tmp_path / "mine")
    done = run(UPLOAD, server, tmp_path, str(folder), "{}")
    assert done.returncode != 0
    assert "CheckpointError: someone/faces: the upload to the Hugging Face hub failed" in done.stderr
    assert "license" in done.stderr and server.validated and not server.models


def test_an_unknown_name_is_one_sentence(server: Hub, tmp_path: Path) -> None:
    done = run(DOWNLOAD, server, tmp_path, str(tmp_path / "state.pt"))
    assert "someone/faces: neither a local path nor a model on the hub" in done.stderr
