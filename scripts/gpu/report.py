"""The rows of one part of `make gpu`: measured in order, printed and written as each one ends."""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ldm.atomic_files import write_text
from ldm.out_of_memory import is_out_of_memory
from scripts.benchmarking import machine, matrix_rate
from scripts.gpu.identity import Identity, identity

FAILED = "error"  # keys of rows without a result
SKIPPED = "skipped"


class Row(NamedTuple):
    """A row to measure.

    Attributes:
        name: "MODEL: WHAT, HOW", for the JSON.
        measure: returns the values of the row.
        seconds: it is not started with less time left.
    """

    name: str
    measure: Callable[[], Mapping[str, Any]]
    seconds: float = 3.0


class Report:
    """The rows of a part.

    A row that fails does not end the others. Rows that are not reached are in the file too, as skipped.

    Args:
        out: JSON file.
        of: device, torch and commit.
        device: device that is measured.
        resume: keep the results in the file, if they are of the same device, torch and commit.
        until: Unix time after which no row starts.
    """

    def __init__(
        self, out: Path, of: Identity, device: torch.device, resume: bool = False, until: float = math.inf
    ) -> None:
        self.out, self.identity, self.device, self.until = out, of, device, until
        self.rates: dict[str, float] = {}  # GFLOP/s by precision
        self.rows: dict[str, dict[str, Any]] = {}
        if resume and out.is_file():
            before = json.loads(out.read_text())
            if before.get("identity") == of:
                self.rows = {name: row for name, row in before["rows"].items() if has_result(row)}

    def run(self, rows: Sequence[Row]) -> int:
        """Measure the rows that have no result yet; return 1 if one has none in the end, else 0."""
        ready = [row for row in rows if row.name not in self.rows]
        for row in ready:
            self.rows[row.name] = {SKIPPED: "not reached"}
        self.write()
        for row in ready:
            left = self.until - time.time()
            if left < row.seconds:
                self._add(row.name, {SKIPPED: f"needs {row.seconds:.0f} s, {max(left, 0):.0f} s are left"})
                continue
            self.rows[row.name] = {SKIPPED: "ended by the time limit"}  # remains if the process is ended
            self.write()
            self._add(row.name, self._measure(row))
        return int(not all(has_result(row) for row in self.rows.values()))

    def measure_rates(self, side: int | None = None) -> None:
        """Measure the rates of matrix products, which rows are compared with, in bfloat16 and float32 without TF32."""
        for precision in ("bfloat16", "float32"):
            with without_tf32():
                self.rates[precision] = matrix_rate(precision, self.device, 10, side)
            print(f"matrix products, {precision:<42} {self.rates[precision] / 1e3:>8.1f} TFLOP/s", flush=True)

    def timing(
        self, seconds: float, images: int, unit: str, precision: str, gflop: float, **more: Any
    ) -> dict[str, Any]:
        """Return the values of a measured time: rate, and share of the rate of matrix products in its precision."""
        values: dict[str, Any] = {"ms": 1e3 * seconds, "per_s": images / seconds, "unit": unit}
        values |= {"precision": precision, "gflop": gflop, "tflops": gflop / seconds / 1e3}
        if precision in self.rates:
            values["share"] = gflop / seconds / self.rates[precision]
        return values | more

    def write(self) -> None:
        """Write the rows so far."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        rates = {name: round(rate / 1e3, 1) for name, rate in self.rates.items()}
        facts = {"identity": self.identity, "machine": machine(self.device), "matrix_tflops": rates}
        write_text(self.out, json.dumps({**facts, "rows": self.rows}, indent=1))

    def _measure(self, row: Row) -> dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            values = dict(row.measure())
        except TimeoutError as error:
            values = {SKIPPED: str(error)}
        except Exception as error:  # a row must not end the others
            text = f"{type(error).__name__}: {str(error)[:500]}"
            values = {"out_of_memory": text} if is_out_of_memory(error) else {FAILED: text}
        if on_gpu:
            if peak := torch.cuda.max_memory_allocated(self.device):  # 0: other processes did the work
                values["peak_gib"] = peak / 2**30
            gc.collect()  # what a row leaves must not be in the memory of the next
        return values

    def _add(self, name: str, values: dict[str, Any]) -> None:
        self.rows[name] = values
        print(line_of(name, values), flush=True)
        self.write()


def has_result(row: Mapping[str, Any]) -> bool:
    """Return whether a row has a result; one that does not fit in memory has."""
    return FAILED not in row and SKIPPED not in row


def line_of(name: str, row: Mapping[str, Any]) -> str:
    """Format a row as a line."""
    for key in (FAILED, SKIPPED, "out_of_memory"):
        if key in row:
            return f"{name:<62} {key.replace('_', ' ')}: {str(row[key]).splitlines()[0][:160]}"
    texts = {
        key: f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in row.items()
    }
    texts |= (
        {"ms": f"{row['ms']:9.2f} ms", "per_s": f"{row['per_s']:9.1f} {row['unit']}"} if "ms" in row else {}
    )
    texts |= {"share": f"{100 * row['share']:.0f} % of the matrix rate"} if "share" in row else {}
    texts |= {"peak_gib": f"{row['peak_gib']:.2f} GiB"} if "peak_gib" in row else {}
    hidden = ("unit", "precision", "gflop")
    return f"{name:<62} " + "  ".join(text for key, text in texts.items() if key not in hidden)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute products and convolutions of float32 on CUDA in float32 within the context, not in TF32."""
    backends: Any = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


class PartOptions(NamedTuple):
    """Command line of a part."""

    out: Path
    device: torch.device
    dry_run: bool
    resume: bool
    until: float
    identity: Identity

    def report(self) -> Report:
        """Return the report that these options ask for."""
        return Report(self.out, self.identity, self.device, self.resume, self.until)


def part_options(description: str | None, arguments: list[str] | None) -> PartOptions:
    """Parse the command line of a part."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--dry-run", action="store_true", help="everything in small on the CPU, instead of on CUDA"
    )
    parser.add_argument("--resume", action="store_true", help="keep the results in --out")
    parser.add_argument("--until", type=float, default=math.inf, help="Unix time after which no row starts")
    parser.add_argument(
        "--identity", type=json.loads, help="JSON of device, torch and commit (default: found)"
    )
    options = parser.parse_args(arguments)
    device = torch.device("cpu" if options.dry_run else "cuda")
    of = options.identity or identity(device.type)
    return PartOptions(options.out, device, options.dry_run, options.resume, options.until, of)
