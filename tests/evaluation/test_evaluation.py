"""The command from start to end, on a small model with random weights."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from ldm.checkpoints.io import write_checkpoint
from ldm.data.labels import CELEBAMASK_HQ
from ldm.pipeline import FacePipeline
from scripts import draw_faces, evaluate
from tests import small
from tests.models.test_segformer import NETWORK

ROOT = Path(__file__).parents[2]
FAST = ["--samples", "2", "--batch-size", "4", "--device", "cpu"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def weights(folder: Path, **params: Any) -> str:
    config = small.diffusion(**params)
    write_checkpoint(folder, small.sensitive(config).state_dict(), {"model": config})
    return str(folder)


def protocol(folder: Path, data: str = "synthetic", last: int = 5) -> str:
    path = folder / "quick.yaml"
    path.write_text(
        f"data: {data}\nfirst: 0\nlast: {last}\nswaps: {{whole: [], hair: [hair]}}\nrandom: {{hair: [hair]}}\n"
        "sampling: {solver: ddim, steps: 2}\n"
    )
    return str(path)


def pictures(out: Path) -> dict[str, bytes]:
    files = sorted((out / "samples").rglob("*.png"))
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def values_apart(found: bytes, wanted: bytes) -> float:
    """Return the share of a PNG's colour values that differ."""
    a, b = (np.asarray(Image.open(io.BytesIO(data))) for data in (found, wanted))
    return (a != b).mean()


def test_the_report_has_every_task_and_says_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    parser = SegformerForSemanticSegmentation(
        SegformerConfig(**NETWORK, id2label=dict(enumerate(CELEBAMASK_HQ.regions)))
    )
    parser.save_pretrained(tmp_path / "parser")
    (tmp_path / "parser/preprocessor_config.json").write_text('{"size": 32}')
    out = tmp_path / "out"
    arguments = [
        "--weights",
        weights(tmp_path / "model"),
        "--protocol",
        protocol(tmp_path),
        "--out",
        str(out),
    ]
    arguments += ["--judges", str(tmp_path), *FAST]
    assert evaluate.main(arguments) == 0
    report = json.loads((out / "report.json").read_text())
    assert len(report["reconstruct"]["faces"]) == 6
    assert report["reconstruct"]["means"]["first_stage_psnr"] > 0
    for variant in ("whole", "hair"):
        means = report["swaps"][variant]["means"]
        assert means["error"] > 0 and means["error_unswapped"] > 0
        assert means["error_ratio"] == pytest.approx(means["error"] / means["error_unswapped"])
    assert report["swaps"]["whole"]["means"]["change"] > 0
    assert {*report["chance"]} == {"random hair", "noise"}
    assert {*report["masks"]} == {"data", "reconstruct", "swap whole", "swap hair", "random hair", "noise"}
    assert report["distances"]["parser"]["noise"]["KID (parser)"] is not None
    assert {*report["left_out"]} == {"LPIPS", "KID and FID", "FD-DINOv2", "CMMD"}
    text = (out / "report.md").read_text()
    assert text.rstrip() in capsys.readouterr().out
    for heading in (
        "Reconstruct",
        "Swap",
        "Random styles",
        "Mask fidelity",
        "Distance to the data",
        "Left out",
    ):
        assert f"\n## {heading}\n" in text
    assert "KID, which is unbiased, is the headline" in text
    for picture in report["pictures"]:
        with Image.open(out / picture) as grid:
            assert grid.width > 3 * 128
    assert len(report["pictures"]) == 5


def test_it_goes_on_where_it_was_and_several_processes_make_the_same(tmp_path: Path) -> None:
    model, quick = weights(tmp_path / "model"), protocol(tmp_path)
    out = tmp_path / "out"
    arguments = ["--weights", model, "--protocol", quick, *FAST]
    assert evaluate.main([*arguments, "--tasks", "swap", "--out", str(out)]) == 0
    made = pictures(out)
    assert {name.split("/")[1] for name in made} == {"reconstruct", "swap"}
    removed = out / "samples/swap/hair/000002.png"
    kept = out / "samples/swap/hair/000001.png"
    removed.unlink()
    before = kept.stat().st_mtime_ns
    assert evaluate.main([*arguments, "--tasks", "swap,random", "--out", str(out)]) == 0
    again = pictures(out)
    assert kept.stat().st_mtime_ns == before
    assert {name: data for name, data in again.items() if "/random/" not in name} == made
    assert len(again) > len(made)
    # Two processes, each with half of the faces, and batches that fall differently.
    shards = tmp_path / "shards"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "scripts/evaluate.py", *arguments, "--tasks", "swap,random", "--out", str(shards)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert pictures(shards).keys() == again.keys()
    for name, data in pictures(shards).items():
        # Sums of another order may round a value up that was rounded down.
        assert values_apart(data, again[name]) < 0.02, name
    assert values_apart(made["samples/swap/whole/000001.png"], made["samples/swap/whole/000002.png"]) > 0.1
    assert (shards / "report.md").is_file()


def test_a_folder_with_pictures_of_other_weights_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick, out = protocol(tmp_path, last=1), tmp_path / "out"
    first = ["--weights", weights(tmp_path / "a"), "--protocol", quick, "--tasks", "noise", "--out", str(out)]
    assert evaluate.main([*first, *FAST]) == 0
    before = pictures(out)
    other = small.diffusion()
    model = small.sensitive(other)
    with torch.no_grad():
        model.first_stage_model.decoder.conv_out.bias += 0.1
    write_checkpoint(tmp_path / "b", model.state_dict(), {"model": other})
    assert evaluate.main(["--weights", str(tmp_path / "b"), *first[2:], *FAST]) == 2
    assert "holds pictures of other weights" in capsys.readouterr().err
    assert pictures(out) == before
    assert evaluate.main([*first, *FAST, "--samples", "3"]) == 0  # more of the same are welcome
    assert len(pictures(out)) == len(before) + 2


def test_faces_that_cannot_be_read_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "faces", tmp_path / "out"
    draw_faces.main([str(data), "--count", "3", "--size", "16"])
    (data / "images/000001.png").write_bytes((data / "images/000001.png").read_bytes()[:200])
    arguments = ["--weights", weights(tmp_path / "model"), "--data", str(data), "--out", str(out), *FAST]
    assert evaluate.main([*arguments, "--tasks", "swap,reconstruct"]) == 1
    report = json.loads((out / "report.json").read_text())
    assert report["facts"]["faces"] == 2 and "000001.png" in report["problems"][0]
    assert "photos have no true answer" in report["left_out"]["error of swaps"]
    assert {*report["reconstruct"]["faces"]} == {"000000", "000002"}
    for image in (data / "images").iterdir():
        image.write_bytes(b"no picture")
    capsys.readouterr()
    assert evaluate.main([*arguments, "--out", str(tmp_path / "other")]) == 2
    assert "no face could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped; the same command goes on from here"),
        (
            RuntimeError("CUDA out of memory"),
            2,
            "out of memory with 4 images at once; lower --batch-size",
        ),
    ],
    ids=["Ctrl-C", "memory"],
)
def test_what_ends_the_sampling_is_one_sentence(
    error: BaseException,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ended(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(FacePipeline, "__call__", ended)
    arguments = ["--weights", weights(tmp_path / "model"), "--protocol", protocol(tmp_path, last=1)]
    assert evaluate.main([*arguments, "--out", str(tmp_path / "out"), *FAST]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "swop"], "unknown task 'swop'; there are reconstruct, swap"),
        (["--judge", "lpips"], "wanted|wants NAME=PATH"),
        (["--batch-size", "0"], "--batch-size of 1 or more"),
    ],
)
def test_mistakes_in_the_command_are_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        evaluate.main(["--weights", "w", "--out", "o", *arguments])
    assert left.value.code == 2
    assert said.split("|")[-1] in capsys.readouterr().err


def test_a_judge_that_cannot_be_used_is_an_error_before_anything_is_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--weights", weights(tmp_path / "model"), "--protocol", protocol(tmp_path, last=1)]
    arguments += ["--out", str(tmp_path / "out"), "--judge", f"lpips={tmp_path / 'none.pth'}", *FAST]
    assert evaluate.main(arguments) == 2
    assert "none.pth: there is no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
