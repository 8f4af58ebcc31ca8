"""ONNX export: the example of docs/onnx.md edits a face as PyTorch does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ldm.bundle import ROOT
from ldm.checkpoints.io import write_checkpoint
from ldm.parsing import FaceParser
from ldm.pipeline import FacePipeline
from ldm.sampling import sample
from ldm.sampling.locking import lock
from scripts import draw_faces, export_onnx
from tests import small

(EXAMPLE,) = re.findall(r"```python\n(.+?)```", (ROOT / "docs/onnx.md").read_text(), re.DOTALL)


def run(file: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(file).run(None, inputs)


def edit_as_documented(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the example on `folder`/onnx and `folder`/assets/faces; return its variables."""
    monkeypatch.chdir(folder)
    known: dict[str, Any] = {}
    exec(EXAMPLE, known)
    assert (folder / "edited.png").is_file()
    return known


def edit_in_torch(pipe: FacePipeline, known: dict[str, Any]) -> torch.Tensor:
    """Return the image (B, 3, H, W) of the same edit, with the example's noise."""
    face, other = (
        {key: torch.tensor(value) for key, value in known[name].items()} for name in ("face", "other")
    )
    style, hair = pipe.read_style(**face)[0], ["hair"]
    style = style.swap(pipe.read_style(**other)[0], hair)
    model, z = pipe.model, pipe.model.encode_first_stage(face["image"])
    ready = model.prepare(
        {"context": style.codes[None], "y": pipe.sampler.mask(face["labels"])}, z.shape[-2:]
    )
    inside = torch.tensor(known["inside"]).float()
    predict = lock(lambda x, t: model.apply_model(x, t, ready), model.schedule, z, inside)
    noise = np.random.default_rng(0).standard_normal(z.shape, np.float32)
    z = sample(predict, torch.tensor(noise), model.schedule, steps=known["steps"], solver="ddim")
    edited = face["labels"][:, None] == pipe.label_set.indices(hair)[0]
    return torch.where(edited, model.decode_first_stage(z).clamp(-1, 1), face["image"])


def test_an_edit_by_onnxruntime_is_the_one_by_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small.diffusion()
    write_checkpoint(tmp_path / "weights", small.sensitive(config).state_dict(), {"model": config})
    assert export_onnx.main([str(tmp_path / "weights"), str(tmp_path / "onnx")]) == 0
    draw_faces.main([str(tmp_path / "assets/faces"), "--count", "13", "--size", "16"])
    known = edit_as_documented(tmp_path, monkeypatch)
    expected = edit_in_torch(FacePipeline.from_pretrained(tmp_path / "weights", device="cpu"), known)
    assert np.abs(known["image"] - expected.numpy()).max() < 1e-3
    assert np.abs(known["image"] - known["face"]["image"]).max() > 0.1
    for file in (tmp_path / "onnx").glob("*.onnx"):
        network = onnx.load(file)
        assert network.opset_import[0].version >= 17
        for value in (*network.graph.input, *network.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param, f"{file.name}: {value.name}"
    # Another batch size than that of the example inputs.
    batch = {key: np.repeat(value, 3, 0) for key, value in known["face"].items()}
    styles = run(tmp_path / "onnx/style.onnx", **batch)[0]
    parts = run(tmp_path / "onnx/condition.onnx", style=styles, labels=batch["labels"])
    inputs = {f"conditioning_{i}": part for i, part in enumerate(parts)}
    noisy = {"latent": np.ones((3, *known["z"].shape[1:]), np.float32), "timestep": np.array([5, 500, 999])}
    assert run(tmp_path / "onnx/denoise.onnx", **noisy, **inputs)[0].shape == noisy["latent"].shape


@pytest.mark.slow
def test_demo_weights_and_parser_in_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = ROOT / "checkpoints/faces/parser"
    command = [str(ROOT / "checkpoints/demo"), str(tmp_path / "onnx"), "--parser", str(parser)]
    assert export_onnx.main(command) == 0
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    known = edit_as_documented(tmp_path, monkeypatch)
    expected = edit_in_torch(FacePipeline.from_pretrained(ROOT / "checkpoints/demo", device="cpu"), known)
    assert np.abs(known["image"] - expected.numpy()).max() < 1e-3
    size = json.loads((tmp_path / "onnx/model.json").read_text())["parser_size"]
    photo = np.asarray(
        known["Image"].open(ROOT / "assets/photos/astronaut.jpg").resize(size[::-1]), np.float32
    )
    image = photo.transpose(2, 0, 1)[None] / 127.5 - 1
    labels = FaceParser.from_pretrained(parser, device="cpu").parse(torch.tensor(image)).numpy()
    assert len(np.unique(labels)) > 5
    assert (run(tmp_path / "onnx/parser.onnx", image=image)[0] == labels).mean() > 0.999
