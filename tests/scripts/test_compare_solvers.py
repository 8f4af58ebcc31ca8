"""scripts/compare_solvers.py: distances of latents, the tables, the command line."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ldm.pipeline import FacePipeline
from ldm.pipeline.image_sampler import SamplingInputs
from ldm.pipeline.options import validate_options
from scripts.compare_solvers import SOLVERS, LatentSampler, _inputs, main
from tests import small

ROOT = Path(__file__).parents[2]


def test_latents_decode_to_the_image_of_the_pipeline() -> None:
    pipe = FacePipeline.from_pretrained(ROOT / "checkpoints" / "demo", precision="float32")
    batch = small.batch(1, size=pipe.size[0])
    labels = batch["labels"]
    style = pipe.read_style(batch["image"], labels)
    options = validate_options(steps=2, seed=3)
    sampler = LatentSampler(pipe.model, pipe.label_set, torch.float32)
    latents = sampler.sample(SamplingInputs(labels, torch.stack([one.codes for one in style])), options)
    assert latents.shape[1:] == (pipe.model.channels, *sampler.latent_size(labels))
    with torch.no_grad():
        image = pipe.model.decode_first_stage(latents).clamp(-1, 1)
    torch.testing.assert_close(image, pipe(labels, style, steps=2, seed=3))


def test_the_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    few = [(how, steps[-1:] if how["solver"] != "dpmpp_2m" else (5, 10)) for how, steps in SOLVERS]
    few[0] = ({"solver": "ddim"}, (20,))
    monkeypatch.setattr("scripts.compare_solvers.SOLVERS", few)
    data = ROOT / "assets" / "faces"
    arguments = [str(ROOT / "checkpoints" / "demo"), "--data", str(data), "--count", "1", "--guidance", "1.5"]
    assert main([*arguments, "--reference", "20"]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    distances = {tuple(row[:2]): float(row[2]) for row in rows if len(row) > 2 and row[1].isdecimal()}
    assert distances["ddim", "20"] == 0 < distances["unipc, order 2", "20"]
    assert distances["dpmpp_2m", "10"] < distances["dpmpp_2m", "5"]
    intervals = {row[0]: float(row[1]) for row in rows if " to " in row[0] or row[0] == "all"}
    assert len(intervals) == 5 and 0 < intervals["all"] < intervals["0.5 to 5"]


def test_the_images_are_those_of_the_pipeline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.compare_solvers.native_bfloat16", lambda device: True)
    monkeypatch.setattr("scripts.compare_solvers.SOLVERS", [])
    weights, data = ROOT / "checkpoints" / "demo", ROOT / "assets" / "faces"
    arguments = ["--data", str(data), "--count", "1", "--guidance", "1", "--reference", "5"]
    assert main([str(weights), *arguments]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line]
    mean, high, largest = ({row[0]: float(row[i]) for row in rows[-4:]} for i in (1, 2, 3))

    pipe = FacePipeline.from_pretrained(weights, precision="float32")
    inputs = _inputs(pipe, data, 1)

    def image(**how: Any) -> torch.Tensor:
        return pipe.sampler.sample(inputs, validate_options(seed=[0], **how))

    difference = image(solver="dpmpp_2m", steps=20) - image(solver="ddim", steps=5)
    levels = 127.5 * difference.abs()
    first = "20 steps of dpmpp_2m, from 5 of ddim"
    assert mean[first] == pytest.approx(float(levels.mean()), abs=0.006)
    assert largest[first] == pytest.approx(float(levels.max()), abs=0.006)
    assert all(0 < mean[name] < high[name] <= largest[name] for name in mean)
    assert largest["decoder in bfloat16"] < 10  # rounding, not another image
