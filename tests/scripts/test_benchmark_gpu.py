"""`make gpu`: time limits, what a second call keeps, packages, and the bar."""

import json
import math
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
import torch

from scripts import benchmark_gpu
from scripts.gpu import (
    bar,
    identity,
    packages,
    parts,
    processes,
    unit_tests,
)
from scripts.gpu.parts import Part, Run
from scripts.gpu.report import Report, Row

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
CARD = {"device": "card A", "torch": "2.11.0", "commit": "abc"}


def of(values: dict) -> Row:
    return Row("a", lambda: values)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


# --- rows of a part ---


def test_a_row_that_fails_leaves_the_others_and_is_measured_again(tmp_path: Path, capsys) -> None:
    def fail() -> dict:
        raise RuntimeError("no kernel image")

    def too_large() -> dict:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 17 GiB")

    out = tmp_path / "part.json"
    rows = [
        Row("a", fail),
        Row("b", lambda: {"ms": 1.0, "per_s": 8.0, "unit": "images/s"}),
        Row("c", too_large),
    ]
    assert Report(out, CARD, CPU).run(rows) == 1
    assert "no kernel image" in capsys.readouterr().out
    assert Report(out, CARD, CPU, resume=True).run([of({"x": 2}), Row("b", fail), Row("c", fail)]) == 0
    found = read(out)["rows"]
    assert found["a"] == {"x": 2} and found["b"]["per_s"] == 8 and "17 GiB" in found["c"]["out_of_memory"]


@pytest.mark.parametrize("key", ["device", "torch", "commit"])
def test_results_of_another_card_torch_or_commit_are_measured_again(key: str, tmp_path: Path) -> None:
    out = tmp_path / "part.json"
    Report(out, CARD, CPU).run([of({"x": 1})])
    Report(out, CARD, CPU, resume=True).run([of({"x": 2})])
    assert read(out)["rows"] == {"a": {"x": 1}}
    Report(out, {**CARD, key: "other"}, CPU, resume=True).run([of({"x": 3})])
    assert read(out)["rows"] == {"a": {"x": 3}} and read(out)["identity"][key] == "other"


def test_rows_without_time_are_recorded_as_skipped(tmp_path: Path) -> None:
    out = tmp_path / "part.json"
    limited = Report(out, CARD, CPU, until=time.time() + 20)

    def interrupted() -> dict:
        raise KeyboardInterrupt

    assert limited.run([of({"x": 1}), Row("compiled", lambda: {}, seconds=60)]) == 1
    assert read(out)["rows"]["a"] == {"x": 1}
    assert "needs 60 s" in read(out)["rows"]["compiled"]["skipped"]
    with pytest.raises(KeyboardInterrupt):
        Report(out, CARD, CPU).run([Row("b", interrupted), Row("c", lambda: {})])
    assert [row["skipped"] for row in read(out)["rows"].values()] == [
        "ended by the time limit",
        "not reached",
    ]


# --- parts and their time ---


@pytest.fixture
def module(tmp_path: Path, monkeypatch):
    """Return a function that makes a module for a part out of Python code."""

    def make(name: str, code: str) -> str:
        (tmp_path / f"part_{name}.py").write_text(textwrap.dedent(code))
        return f"part_{name}"

    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    return make


WRITES = """
    import json, sys, time
    out = sys.argv[sys.argv.index("--out") + 1]
    open(out + ".calls", "a").write("x")
    json.dump({"identity": IDENTITY, "rows": ROWS}, open(out, "w"))
    print("hello")
"""


def writes(rows: dict) -> str:
    return WRITES.replace("IDENTITY", repr(CARD)).replace("ROWS", repr(rows))


def test_each_part_has_a_status_and_a_time_limit(tmp_path: Path, module) -> None:
    out = tmp_path / "out"
    run = Run(out, CARD, dry_run=False, resume=True)
    plan = [
        Part("good", 10, module("good", writes({"a": {"x": 1}}))),
        Part("bad", 10, module("bad", writes({"a": {"error": "wrong"}}))),
        Part("crash", 10, module("crash", "raise SystemExit(3)")),
    ]
    records = parts.run_all(run, plan, 200)
    assert {name: record["status"] for name, record in records.items()} == {
        **{"good": "complete", "bad": "failed", "crash": "failed"}
    }
    code = writes({"a": {"skipped": "not reached"}}) + "    time.sleep(300)\n"
    began = time.monotonic()
    parts.run_part(run, Part("slow", 10, module("slow", code)), 15)
    assert time.monotonic() - began < 60
    assert (out / "good.log").read_text() == "hello\n"
    assert read(out / "slow.json")["status"] == "incomplete"

    parts.run_all(run, plan[:2], 120)  # only what is not complete runs again
    assert [len((out / f"{name}.json.calls").read_text()) for name in ("good", "bad")] == [1, 2]
    parts.run_all(Run(out, {**CARD, "torch": "2.12"}, False, True), plan[:1], 120)
    assert (out / "good.json.calls").read_text() == "xx"


def test_without_time_parts_are_recorded_as_skipped_and_keep_their_rows(tmp_path: Path, module) -> None:
    out = tmp_path / "out"
    run = Run(out, CARD, dry_run=False, resume=True)
    part = Part("bad", 10, module("bad", writes({"a": {"x": 1}, "b": {"skipped": "not reached"}})))
    parts.run_all(run, [part], 60)
    records = parts.run_all(run, [part, Part("new", 10, "never")], 1)
    assert [record["status"] for record in records.values()] == ["skipped", "skipped"]
    assert read(out / "bad.json")["rows"]["a"] == {"x": 1}
    assert read(out / "new.json")["status"] == "skipped"


def test_the_command_writes_a_summary_and_fails_if_a_part_is_not_complete(
    tmp_path: Path, module, monkeypatch, capsys
) -> None:
    rows = {
        "m: step, batch 1, bfloat16, eager": {"share": 0.3},
        "m: step, batch 4, bfloat16, eager": {"share": 0.6},
    }
    monkeypatch.setattr(benchmark_gpu, "_identity", lambda device: CARD)
    monkeypatch.setattr(benchmark_gpu, "PARTS", (Part("sampling", 10, module("s", writes(rows))),))
    command = ["--dry-run", "--out", str(tmp_path / "out")]
    assert benchmark_gpu.main(command) == 0
    summary = read(tmp_path / "out" / "summary.json")
    (verdict,) = summary["bar"]["verdicts"]
    assert verdict["reached"] and verdict["row"] == "m: step, batch 4, bfloat16, eager"
    assert "m: step: reached, 60 %" in capsys.readouterr().out
    assert benchmark_gpu.main([*command, "--seconds", "1"]) == 1
    assert read(tmp_path / "out" / "summary.json")["parts"]["sampling"]["status"] == "skipped"


def test_the_bar_is_checked_for_each_model_and_kind_of_work() -> None:
    rows = {
        "m: step, batch 1, bfloat16, eager": {"share": 0.2},
        "m: step, batch 1, float32, eager": {"share": 0.9},
        "m: training step, batch 8, bfloat16, eager": {"share": 0.5},
        "n: training step, batch 8, bfloat16, eager": {"skipped": "not reached"},
        "tests": {"passed": 3},
    }
    found = {verdict.what: (verdict.reached, verdict.row) for verdict in bar.verdicts(rows)}
    assert found == {
        "m: step": (False, "m: step, batch 1, bfloat16, eager"),
        "m: training step": (True, "m: training step, batch 8, bfloat16, eager"),
        "n: training step": (False, None),
    }


# --- packages, identity, tests ---


def wheel(folder: Path, name: str) -> None:
    """Write a wheel of one module."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "VALUE = 1\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_missing_packages_are_installed_from_wheels(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    needed = {"torch": "torch", "scadm_absent": "scadm-absent"}
    assert packages.provide({"torch": "torch"}) is None
    with pytest.raises(packages.PackageError, match=r"missing packages: scadm-absent; found no wheels"):
        packages.provide(needed, tmp_path / "wheels", tmp_path / "into")
    wheel(tmp_path / "wheels", "scadm_absent")
    assert packages.provide(needed, tmp_path / "wheels", tmp_path / "into") == tmp_path / "into"
    assert packages.missing(needed) == []
    assert (tmp_path / "into" / "scadm_absent.py").is_file()


def test_the_command_imports_nothing_that_may_be_missing() -> None:
    code = "import sys, scripts.benchmark_gpu; sys.exit(any(m in sys.modules for m in ('torch', 'omegaconf', 'yaml')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_command_says_so(tmp_path: Path, capsys) -> None:
    assert benchmark_gpu.main(["--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "no CUDA device" in error and "--dry-run" in error and len(error.splitlines()) == 1


def test_the_revision_is_that_of_the_code(tmp_path: Path) -> None:
    assert identity.identity("cpu")["torch"] == torch.__version__
    (tmp_path / "ldm").mkdir()
    (tmp_path / "ldm" / "a.py").write_text("a = 1\n")
    first = identity.revision(tmp_path)
    assert first.startswith("sources-") and identity.revision(tmp_path) == first
    (tmp_path / "ldm" / "a.py").write_text("a = 2\n")
    assert identity.revision(tmp_path) != first


def test_results_of_pytest_are_counted(tmp_path: Path) -> None:
    xml = tmp_path / "tests.xml"
    assert "without a report" in unit_tests.results(xml, 3, True)["error"]
    case = '<testcase name="{}">{}</testcase>'
    cases = case.format("a", "") + case.format("b", "<skipped/>") + case.format("c", "<failure/>")
    xml.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    found = unit_tests.results(xml, 1, True)
    assert (found["passed"], found["failed"], found["without_device"]) == (1, 1, 1) and "c" in found["error"]
    xml.write_text(f"<testsuites><testsuite>{case.format('a', '')}</testsuite></testsuites>")
    assert "skipped" in unit_tests.results(xml, 2, False)


def test_every_test_that_needs_cuda_runs() -> None:
    """A file with such tests is one of those that the part runs."""
    for file in (ROOT / "tests").rglob("test_*.py"):
        if "pytest.mark.gpu" in file.read_text() or "not torch.cuda.is_available()" in file.read_text():
            path = str(file.relative_to(ROOT))
            if path != "tests/scripts/test_benchmark_gpu.py":
                assert any(path.startswith(chosen) for chosen in unit_tests.TESTS), path


def test_processes_that_fail_or_take_too_long_are_ended() -> None:
    def start(code: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", code], text=True)

    waiting = start("import time; time.sleep(300)")
    with pytest.raises(RuntimeError, match="status 3"):
        processes.wait([waiting, start("raise SystemExit(3)")], math.inf)
    assert waiting.poll() is not None
    with pytest.raises(TimeoutError):
        processes.wait([start("import time; time.sleep(300)")], time.time() + 0.5)
