"""The parts of `make gpu`: each a process with a share of the time, whose results are written as they come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from ldm.atomic_files import write_text
from scripts.gpu.identity import Identity

ROOT = Path(__file__).resolve().parents[2]
LEAST = 5.0  # seconds for which no process is started
GRACE = 8.0  # seconds between the end of a part's rows and its process, and from SIGINT to SIGKILL


class Part(NamedTuple):
    """A part and the seconds that it is planned to take."""

    name: str
    seconds: float
    module: str


PARTS = (  # sampling is the last, since its compiled rows can use all time that is left
    Part("tests", 110, "scripts.gpu.unit_tests"),
    Part("processes", 60, "scripts.gpu.processes"),
    Part("faces", 105, "scripts.gpu.faces"),
    Part("training", 105, "scripts.gpu.training"),
    Part("sampling", 140, "scripts.gpu.sampling"),
)


class Run(NamedTuple):
    """What all parts of a call share.

    Attributes:
        out: folder of NAME.json and NAME.log of each part.
        of: device, torch and commit.
    """

    out: Path
    of: Identity
    dry_run: bool
    resume: bool

    def record(self, part: Part) -> dict[str, Any]:
        """Return the JSON of a part, without its content if that is of another device, torch or commit."""
        try:
            found = json.loads((self.out / f"{part.name}.json").read_text())
        except (OSError, ValueError):
            found = {}
        return found if found.get("identity") == self.of else {"identity": self.of, "rows": {}}

    def write(self, part: Part, record: dict[str, Any]) -> None:
        """Write the JSON of a part."""
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / f"{part.name}.json", json.dumps(record, indent=1))


def run_all(run: Run, parts: Sequence[Part], seconds: float) -> dict[str, dict[str, Any]]:
    """Run parts one after the other within a number of seconds; return their records by name.

    The time that is left is shared in proportion to the planned seconds, so that a part which ends early
    leaves its time to the others.
    """
    deadline, records = time.monotonic() + seconds, {}
    for number, part in enumerate(parts):
        planned = sum(each.seconds for each in parts[number:])
        limit = (deadline - time.monotonic()) * part.seconds / planned
        records[part.name] = run_part(run, part, limit)
    return records


def run_part(run: Run, part: Part, limit: float) -> dict[str, Any]:
    """Run a part for at most `limit` seconds, unless it is complete already, and return its record."""
    before = run.record(part)
    if run.resume and before.get("status") == "complete":
        print(f"\n=== {part.name}: complete since an earlier call", flush=True)
        return before
    if limit < LEAST:
        print(f"\n=== {part.name}: skipped, the time is up", flush=True)
        record = {**(before if run.resume else {"identity": run.of, "rows": {}}), "status": "skipped"}
        run.write(part, record)
        return record
    print(f"\n=== {part.name}: at most {limit:.0f} s", flush=True)
    file = run.out / f"{part.name}.json"
    if not run.resume:
        file.unlink(missing_ok=True)
    command = [sys.executable, "-m", part.module, "--out", str(file)]
    command += ["--until", f"{time.time() + limit - GRACE:.0f}", "--resume"]
    command += ["--identity", json.dumps(run.of)]  # the code may change meanwhile
    began = time.monotonic()
    status = run_process(
        [*command, *(["--dry-run"] if run.dry_run else [])], run.out / f"{part.name}.log", limit
    )
    record = run.record(part)
    record |= {"status": verdict(record["rows"], status), "exit_status": status}
    record["seconds"] = round(time.monotonic() - began, 1)
    run.write(part, record)
    print(f"=== {part.name}: {record['status']} after {record['seconds']:.0f} s", flush=True)
    return record


def verdict(rows: dict[str, dict[str, Any]], exit_status: int) -> str:
    """Return "complete", "incomplete" if rows were skipped for want of time, or "failed"."""
    if any("error" in row for row in rows.values()):
        return "failed"
    if any("skipped" in row for row in rows.values()):
        return "incomplete"
    return "complete" if rows and exit_status == 0 else "failed"


def run_process(command: Sequence[str], log: Path, limit: float) -> int:
    """Run a process in a group of its own, print its output and write it to a file; return its exit status.

    After `limit` seconds, the group gets SIGINT, and SIGKILL if that does not end it.
    """
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        reader = threading.Thread(target=_copy, args=(process.stdout, file), daemon=True)
        reader.start()
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            _signal(process, signal.SIGKILL)  # also what the process has left behind
            process.wait()
            reader.join(GRACE)
    return process.returncode


def _copy(source: IO[str], file: IO[str]) -> None:
    for line in source:
        print(line, end="", flush=True)
        file.write(line)
        file.flush()


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
