"""Everything that a GPU should confirm, within minutes: tests, sampling, training, two processes, a minute of faces.

Each part writes NAME.json and NAME.log to --out as it runs. A part that fails or runs out of time does not
end the others; what was not reached is in its JSON as skipped, and the exit status is 1. With --resume,
another call measures only what has no result yet of the same device, torch and commit:

  python scripts/benchmark_gpu.py --resume --out results/gpu
  python scripts/benchmark_gpu.py --dry-run --out /tmp/gpu

Needs no internet: packages that are missing are installed from wheels in .whl/.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

# Only modules that need no package but the standard library.
from ldm.atomic_files import write_text
from scripts.gpu import bar
from scripts.gpu.packages import PackageError, provide
from scripts.gpu.parts import PARTS, Run, run_all

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 520  # a lease of ten minutes has nine for this


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; return 1 if one is not complete, and 2 if a package or the GPU is missing."""
    options = build_parser().parse_args(arguments)
    began = time.monotonic()
    try:
        _extend_path(ROOT, provide())
        identity = _identity("cpu" if options.dry_run else "cuda")
    except (PackageError, RuntimeError) as error:
        print(f"benchmark_gpu.py: error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{key} {value}" for key, value in identity.items()), flush=True)
    run = Run(options.out.absolute(), identity, options.dry_run, options.resume)
    parts = [part for part in PARTS if part.name in options.parts]
    records = run_all(run, parts, options.seconds - (time.monotonic() - began))
    summary = summarize(identity, records)
    write_text(run.out / "summary.json", json.dumps(summary, indent=1))
    return int(any(part["status"] != "complete" for part in summary["parts"].values()))


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument(
        "--out", type=Path, default=Path("results/gpu"), help="folder to write (default: results/gpu)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the results in --out and measure the others"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"time for everything (default: {SECONDS})"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=names, default=names, metavar="PART", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--dry-run", action="store_true", help="every part in small on the CPU")
    return parser


def summarize(identity: dict[str, str], records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Print and return the status of each part, and whether the bar is reached."""
    parts = {}
    print()
    for name, record in records.items():
        rows = record["rows"].values()
        counts = {kind: sum(kind in row for row in rows) for kind in ("error", "skipped")}
        parts[name] = {"status": record["status"], "rows": len(rows), **counts}
        print(
            f"{name:<12} {record['status']:<12} {len(rows)} rows, {counts['error']} failed, {counts['skipped']} skipped"
        )
    verdicts = [verdict for record in records.values() for verdict in bar.verdicts(record["rows"])]
    print(f"bar of {100 * bar.BAR:.0f} % of the matrix rate in bfloat16:")
    for verdict in verdicts:
        print(f"  {verdict}")
    found = [{**verdict._asdict(), "reached": verdict.reached} for verdict in verdicts]
    return {"identity": identity, "parts": parts, "bar": {"share": bar.BAR, "verdicts": found}}


def _extend_path(*folders: Path | None) -> None:
    """Make folders importable in the processes of the parts."""
    paths = [*map(str, filter(None, folders)), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def _identity(device: str) -> dict[str, str]:
    """Return device, torch and commit, from a process that leaves no memory on the GPU."""
    command = [sys.executable, "-m", "scripts.gpu.identity", "--device", device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise RuntimeError(lines[-1])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
