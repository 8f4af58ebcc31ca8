"""The benchmark as a person runs it, on a small model."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scripts import benchmark, benchmark_training, benchmarking
from tests import small


def test_a_table_and_its_json(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(benchmarking, "MATRIX", 64)  # where bfloat16 is emulated, more takes minutes
    config = tmp_path / "small.yaml"
    OmegaConf.save(OmegaConf.create({"model": small.diffusion()}), config)
    out = tmp_path / "results" / "bench.json"
    options = [
        "--config",
        config,
        "--size",
        16,
        "--batches",
        "2",
        "--repeats",
        1,
        "--steps",
        2,
        "--out",
        out,
    ]
    assert benchmark.main([*map(str, options), "--precisions", "bfloat16", "--device", "cpu"]) == 0
    report = json.loads(out.read_text())
    rows = {row["part"]: row for row in report["rows"]}
    for precision in ("float32", "bfloat16"):
        one, two = (rows[f"step, cached, {precision}, batch {batch}"] for batch in (1, 2))
        assert two["gflop"] == pytest.approx(2 * one["gflop"])
        assert report["matrix_gflops"][precision] > 0
        image = rows[f"whole image, 2 steps, {precision}"]
        once = ("style code", "condition, once per image", "decode")
        assert image["gflop"] == pytest.approx(sum(rows[part]["gflop"] for part in once) + 2 * one["gflop"])
    assert rows["decode, bfloat16"]["gflop"] == rows["decode"]["gflop"]  # the pipeline decodes in it
    whole = rows["step, plain"]["gflop"]
    cached = rows["step, cached, float32, batch 1"]["gflop"]
    assert whole == pytest.approx(cached + rows["condition, once per image"]["gflop"])
    assert report["conditioning_mib"] > 0 and report["peak_memory_gib"] > 0
    printed = capsys.readouterr().out
    assert all(f"| {part} |" in printed for part in rows)


@pytest.mark.parametrize("regions", [7, 35])
def test_a_model_of_other_regions(regions: int, tmp_path: Path) -> None:
    model = small.diffusion(unet={"num_classes": regions})
    model["params"]["cond_stage_config"]["params"]["num_mask_channels"] = regions
    config, out = tmp_path / "small.yaml", tmp_path / "bench.json"
    OmegaConf.save(OmegaConf.create({"model": model}), config)
    options = ["--config", config, "--size", 16, "--repeats", 1, "--steps", 1, "--batches", 1, "--out", out]
    assert benchmark.main([*map(str, options), "--device", "cpu"]) == 0
    assert {row["note"] for row in json.loads(out.read_text())["rows"]} >= {"measured", "sum of its parts"}


@pytest.mark.parametrize("options", [["--precisions", "float8"], ["--batches", "0"], ["--batches", "two"]])
def test_wrong_sizes_and_precisions_are_said_before_anything_is_measured(options: list[str], capsys) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(options)
    assert options[1] in capsys.readouterr().err


def test_a_share_is_that_of_the_matrix_rate() -> None:
    lines = benchmarking.table([benchmark.Row("decode", 671.0, 3.0, 0.75, "measured")]).splitlines()
    assert lines[-1] == "| decode | 671.0 | 3.000 | 75 % | measured |"


@pytest.mark.parametrize("options", [[], ["--published"], ["--precision", "bfloat16"]])
def test_a_training_step(options: list[str], tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(benchmarking, "MATRIX", 64)
    config, out = tmp_path / "small.yaml", tmp_path / "results" / "training.json"
    OmegaConf.save(OmegaConf.create({"model": small.diffusion()}), config)
    given = ["--config", config, "--size", 16, "--batch", 2, "--repeats", 1, "--device", "cpu", "--out", out]
    assert benchmark_training.main([*map(str, given), *options]) == 0
    report = json.loads(out.read_text())
    seconds = {row["part"]: row["seconds"] for row in report["rows"]}
    whole = seconds.pop("whole step")
    assert set(seconds) == {"forward", "backward", "optimizer, after the backward pass", "averages"}
    assert 0 < sum(seconds.values()) <= whole
    assert report["floor_s"] >= 0 and report["peak_memory_gib"] > 0
    assert "images/s" in capsys.readouterr().out


@pytest.mark.parametrize("script", [benchmark, benchmark_training])
@pytest.mark.parametrize(
    ("text", "match"),
    [(None, "there is no such file"), ("[1, 2]", "no diffusion model"), ("a: [", "is not YAML")],
)
def test_an_unusable_config_is_one_sentence(
    script, text: str | None, match: str, tmp_path: Path, capsys
) -> None:
    config = tmp_path / "mine.yaml"
    if text is not None:
        config.write_text(text)
    assert script.main(["--config", str(config), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert match in error and error.count("\n") == 1
