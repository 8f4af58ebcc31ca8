"""The GPU benchmark in small on the CPU, and what its report does with rows that fail or exist already."""

import json
from pathlib import Path

import torch

from scripts import benchmark_gpu
from scripts.benchmark_gpu import Found, Report

CPU = torch.device("cpu")


def test_every_row_of_a_dry_run_is_measured(tmp_path: Path, capsys) -> None:
    out = tmp_path / "results" / "gpu.json"
    assert benchmark_gpu.main(["--dry-run", "--device", "cpu", "--seconds", "600", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["matrix_tflops"].keys() == {"bfloat16", "float32"}
    kinds = ("training step", "step, bfloat16, batch 2", "step, float32", "decode", "whole image")
    for kind in kinds:
        assert any(kind in part for part in found["rows"]), kind
    assert all(row["ms"] > 0 for row in found["rows"].values())
    printed = capsys.readouterr().out
    assert all(part in printed for part in found["rows"])


def test_a_row_that_fails_leaves_the_others_and_is_measured_again(tmp_path: Path, capsys) -> None:
    def fail() -> Found:
        raise RuntimeError("out of memory at 17 GiB")

    report = Report(tmp_path / "gpu.json", CPU, resume=False, seconds=60)
    report.row("a", fail)
    report.row("b", lambda: Found(0.5, 4))
    assert "out of memory at 17 GiB" in capsys.readouterr().out
    resumed = Report(tmp_path / "gpu.json", CPU, resume=True, seconds=60)
    resumed.row("b", fail)  # exists
    resumed.row("a", lambda: Found(0.1, 1))
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert rows["a"]["images_per_s"] == 10 and rows["b"]["images_per_s"] == 8
    late = Report(tmp_path / "late.json", CPU, resume=False, seconds=-1)
    late.row("a", fail)
    assert late.rows == {}
