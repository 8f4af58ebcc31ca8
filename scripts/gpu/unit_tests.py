"""Part of `make gpu`: the tests that need CUDA, with pytest."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from scripts.gpu.report import FAILED, SKIPPED, PartOptions, Row, part_options

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/gpu", "tests/models/test_stalls.py")  # a test checks that no other file needs CUDA
SMALL = ("tests/gpu/test_networks.py", "-k", "recorded_unet")
END = 10.0  # seconds in which an interrupted pytest writes its report


def main(arguments: list[str] | None = None) -> int:
    """Run the tests; return 1 if one failed or was not reached."""
    options = part_options(__doc__, arguments)
    return options.report().run([Row("tests", lambda: run(options), 10.0)])


def run(options: PartOptions) -> dict[str, Any]:
    """Run pytest until the time is up, and return the numbers of its results."""
    xml = options.out.with_suffix(".xml").absolute()
    xml.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-vv", "-rfE", "-p", "no:cacheprovider", "--durations=5"]
    command += [f"--junitxml={xml}", *(SMALL if options.dry_run else TESTS)]
    if find_spec("pytest_timeout"):  # a test that hangs must not take the time of the others
        command += ["--timeout=90"]
    device = {"SCA_DM_GPU_TESTS_DEVICE": "cpu"} if options.dry_run else {}
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **device})
    left = None if math.isinf(options.until) else max(options.until - time.time() - END, 1)
    in_time = True
    try:
        process.wait(left)
    except subprocess.TimeoutExpired:
        in_time = False
        process.send_signal(signal.SIGINT)  # pytest ends and writes its report
        with suppress(subprocess.TimeoutExpired):
            process.wait(END)
    finally:
        process.kill()
        process.wait()
    return results(xml, process.returncode, in_time)


def results(xml: Path, status: int, in_time: bool) -> dict[str, Any]:
    """Return the numbers of tests by result, from pytest's report."""
    if not xml.is_file():
        why = f"pytest ended with status {status} and without a report"
        return {FAILED: why} if in_time else {SKIPPED: f"the time is up; {why}"}
    cases = list(ElementTree.parse(xml).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    found: dict[str, Any] = {
        "passed": len(cases) - len(failed) - skipped,
        "failed": len(failed),
        "without_device": skipped,
    }
    if failed:
        names = ", ".join(str(case.get("name")) for case in failed[:20])
        found[FAILED] = f"{len(failed)} of {len(cases)} tests failed: {names}"
    elif not in_time:
        found[SKIPPED] = f"the time is up after {len(cases)} tests"
    elif status:
        found[FAILED] = f"pytest ended with status {status}"
    return found


if __name__ == "__main__":
    sys.exit(main())
