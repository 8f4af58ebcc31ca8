"""scripts/evaluate.py end to end, on a small model with random weights."""

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
FAST = ["--samples", "2", "--batch-size", "4", "--device", "cpu", "--metric-network", "parser=none"]


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


def samples(out: Path) -> dict[str, bytes]:
    files = sorted((out / "samples").rglob("*.png"))
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def different_values(one: bytes, other: bytes) -> float:
    """Return the share of the color values of two PNGs that differ."""
    a, b = (np.asarray(Image.open(io.BytesIO(data))) for data in (one, other))
    return (a != b).mean()


def test_report_has_every_task_and_lists_missing_metrics(
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
    arguments += ["--judges", str(tmp_path), *FAST[:-2]]
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
    assert {*report["left_out"]} >= {"LPIPS", "KID and FID", "FD-DINOv2", "CMMD"}
    assert "mask fidelity" not in report["left_out"]
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
    assert "prefer KID, which is unbiased" in text
    for file in report["pictures"]:
        with Image.open(out / file) as grid:
            assert grid.width > 3 * 128
    assert len(report["pictures"]) == 5


def test_resuming_and_several_processes_give_the_same_images(tmp_path: Path) -> None:
    model, quick = weights(tmp_path / "model"), protocol(tmp_path)
    out = tmp_path / "out"
    arguments = ["--weights", model, "--protocol", quick, *FAST]
    assert evaluate.main([*arguments, "--tasks", "swap", "--out", str(out)]) == 0
    first = samples(out)
    assert {name.split("/")[1] for name in first} == {"reconstruct", "swap"}
    removed = out / "samples/swap/hair/000002.png"
    kept = out / "samples/swap/hair/000001.png"
    removed.unlink()
    before = kept.stat().st_mtime_ns
    assert evaluate.main([*arguments, "--tasks", "swap,random", "--out", str(out)]) == 0
    again = samples(out)
    assert kept.stat().st_mtime_ns == before
    assert {name: data for name, data in again.items() if "/random/" not in name} == first
    assert len(again) > len(first)
    # Two processes with half of the faces each, and other batches.
    parallel = tmp_path / "parallel"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "scripts/evaluate.py", *arguments, "--tasks", "swap,random", "--out", str(parallel)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert samples(parallel).keys() == again.keys()
    for name, data in samples(parallel).items():
        # Another order of summation may change the rounding.
        assert different_values(data, again[name]) < 0.02, name
    assert (
        different_values(first["samples/swap/whole/000001.png"], first["samples/swap/whole/000002.png"]) > 0.1
    )
    assert (parallel / "report.md").is_file()


def test_samples_of_other_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick, out = protocol(tmp_path, last=1), tmp_path / "out"
    first = ["--weights", weights(tmp_path / "a"), "--protocol", quick, "--tasks", "noise", "--out", str(out)]
    assert evaluate.main([*first, *FAST]) == 0
    before = samples(out)
    other = small.diffusion()
    model = small.sensitive(other)
    with torch.no_grad():
        model.first_stage_model.decoder.conv_out.bias += 0.1
    write_checkpoint(tmp_path / "b", model.state_dict(), {"model": other})
    assert evaluate.main(["--weights", str(tmp_path / "b"), *first[2:], *FAST]) == 2
    assert "has images of other weights" in capsys.readouterr().err
    assert samples(out) == before
    assert evaluate.main([*first, *FAST, "--samples", "3"]) == 0  # more samples of the same weights
    assert len(samples(out)) == len(before) + 2


def test_samples_of_a_folder_that_has_grown_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "faces", tmp_path / "out"
    draw_faces.main([str(data), "--count", "3", "--size", "16"])
    removed = [data / "images/000002.png", data / "labels/000002.png"]
    kept = [file.read_bytes() for file in removed]
    for file in removed:
        file.unlink()
    arguments = ["--weights", weights(tmp_path / "model"), "--data", str(data), "--out", str(out), *FAST]
    arguments += ["--tasks", "swap", "--sampling", "steps=2"]
    assert evaluate.main(arguments) == 0
    for file, content in zip(removed, kept, strict=True):
        file.write_bytes(content)
    assert evaluate.main(arguments) == 2
    assert "has images of other faces (2 faces, digest " in capsys.readouterr().err


def test_precision_and_sampling_are_recorded_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick, out = Path(protocol(tmp_path, last=1)), tmp_path / "out"
    quick.write_text(quick.read_text().replace("{solver: ddim, steps: 2}", "{}"))
    arguments = ["--weights", weights(tmp_path / "model"), "--protocol", str(quick), "--out", str(out)]
    arguments += ["--tasks", "noise", *FAST]
    assert evaluate.main([*arguments, "--precision", "bfloat16"]) == 0
    assert evaluate.main([*arguments, "--samples", "3"]) == 0
    assert "sampled with solver dpmpp_2m, steps 10, spacing logsnr in bfloat16." in capsys.readouterr().out
    assert evaluate.main([*arguments, "--precision", "float32"]) == 2
    assert "has images of other precision (bfloat16);" in capsys.readouterr().err
    record = out / "samples/made_of.json"
    settings = json.loads(record.read_text())
    assert settings["sampling"]["steps"] == 10
    # As earlier versions wrote it.
    record.write_text(
        json.dumps({**{k: v for k, v in settings.items() if k not in ("faces", "precision")}, "sampling": {}})
    )
    assert evaluate.main([*arguments, "--precision", "float32"]) == 0
    assert json.loads(record.read_text()) == settings | {"precision": "float32"}


def test_processes_agree_on_the_value_of_the_first(tmp_path: Path) -> None:
    script = tmp_path / "agree.py"
    script.write_text(
        "from ldm.evaluation.processes import ProcessGroup\n"
        "with ProcessGroup() as group:\n"
        "    assert group.agree(f'rank {group.rank}') == 'rank 0' and group.world_size == 2\n"
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unreadable_faces_are_skipped_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "faces", tmp_path / "out"
    draw_faces.main([str(data), "--count", "3", "--size", "16"])
    (data / "images/000001.png").write_bytes((data / "images/000001.png").read_bytes()[:200])
    arguments = ["--weights", weights(tmp_path / "model"), "--data", str(data), "--out", str(out), *FAST]
    assert evaluate.main([*arguments, "--tasks", "swap,reconstruct"]) == 1
    report = json.loads((out / "report.json").read_text())
    assert report["facts"]["faces"] == 2 and "000001.png" in report["problems"][0]
    assert "no ground truth" in report["left_out"]["error of swaps"]
    assert {*report["reconstruct"]["faces"]} == {"000000", "000002"}
    for image in (data / "images").iterdir():
        image.write_bytes(b"not an image")
    capsys.readouterr()
    assert evaluate.main([*arguments, "--out", str(tmp_path / "other")]) == 2
    assert "no face could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command again"),
        (
            RuntimeError("CUDA out of memory"),
            2,
            "out of memory with 4 images at once; lower --batch-size",
        ),
    ],
    ids=["Ctrl-C", "memory"],
)
def test_interruption_and_out_of_memory_are_one_sentence(
    error: BaseException,
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(FacePipeline, "__call__", fail)
    arguments = ["--weights", weights(tmp_path / "model"), "--protocol", protocol(tmp_path, last=1)]
    assert evaluate.main([*arguments, "--out", str(tmp_path / "out"), *FAST]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "swop"], "unknown task 'swop'; available: reconstruct, swap"),
        (["--judge", "lpips"], "--metric-network must be NAME=PATH"),
        (["--metric-network", "lpips"], "--metric-network must be NAME=PATH"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    ],
)
def test_invalid_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        evaluate.main(["--weights", "w", "--out", "o", *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_metric_networks_are_loaded_before_sampling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--weights", weights(tmp_path / "model"), "--protocol", protocol(tmp_path, last=1)]
    arguments += ["--out", str(tmp_path / "out"), "--judge", f"lpips={tmp_path / 'none.pth'}", *FAST]
    assert evaluate.main(arguments) == 2
    assert "none.pth does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_outputs_are_checked_before_sampling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "faces", tmp_path / "out"
    draw_faces.main([str(data), "--count", "2", "--size", "16"])
    arguments = ["--weights", weights(tmp_path / "model"), "--data", str(data), "--tasks", "noise", *FAST]
    (tmp_path / "file").touch()
    assert evaluate.main([*arguments, "--out", str(tmp_path / "file" / "out")]) == 2
    assert "expected a folder" in capsys.readouterr().err
    photo = data / "images" / "000001.png"
    before = photo.read_bytes()
    (out / "samples/noise").mkdir(parents=True)
    (out / "samples/noise/000001_1.png").symlink_to(photo)
    assert evaluate.main([*arguments, "--out", str(out)]) == 2
    assert "would replace" in capsys.readouterr().err
    assert photo.read_bytes() == before and [*(out / "samples").rglob("*.json")] == []
