"""Measure training and sampling on a GPU: each row against the matrix rate of the same card, printed as it is found.

A row that fails is reported and the next one runs; rows end when the time is up. --resume keeps the rows of the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ldm.atomic_files import write_text
from ldm.checkpoints.locate import usable_device
from ldm.models.diffusion import LatentDiffusion
from ldm.models.per_sample_rng import BatchIndex
from scripts.benchmarking import cached_batch, finish, machine, matrix_rate, random_model

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "latent-diffusion"
SMALL, PUBLISHED, TINY = "faces-256", "celebamask-hq", "synthetic-32"
HEADER = f"{'part':<58} {'ms':>9} {'images/s':>9} {'TFLOP/s':>8} {'share':>6} {'GiB':>6}"


class Found(NamedTuple):
    """Measurement of a row; the operations are None if they are not counted."""

    seconds: float
    images: int
    gflop: float | None = None
    precision: str = "bfloat16"
    note: str = ""


class Report:
    """The rows so far: printed, and written after each one.

    Args:
        out: JSON file.
        resume: keep the rows that the file has.
        seconds: no row starts after this time.
    """

    def __init__(self, out: Path, device: torch.device, resume: bool, seconds: float) -> None:
        self.out, self.device = out, device
        self.rates: dict[str, float] = {}  # GFLOP/s by precision
        self.rows: dict[str, dict[str, Any]] = {}
        if resume and out.is_file():
            self.rows = {k: v for k, v in json.loads(out.read_text())["rows"].items() if "error" not in v}
        self.deadline = time.monotonic() + seconds

    def row(self, part: str, measure: Callable[[], Found]) -> None:
        """Measure a row and write it, unless it exists or the time is up."""
        if part in self.rows:
            return
        if time.monotonic() > self.deadline:
            print(f"{part:<58} skipped: the time is up", flush=True)
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            self._add(part, measure())
        except Exception as error:  # a row must not end the others
            self.rows[part] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            print(f"{part:<58} failed: {self.rows[part]['error'].splitlines()[0][:140]}", flush=True)
        self._write()

    def rate(self, precision: str, side: int | None) -> None:
        """Measure the rate of matrix products, which the rows are compared with."""
        self.rates[precision] = matrix_rate(precision, self.device, 10, side)
        print(f"matrix products, {precision:<38} {self.rates[precision] / 1e3:>8.1f} TFLOP/s", flush=True)

    def _add(self, part: str, found: Found) -> None:
        memory = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0
        row = {"ms": 1e3 * found.seconds, "images_per_s": found.images / found.seconds, "peak_gib": memory}
        text = f"{part:<58} {row['ms']:>9.2f} {row['images_per_s']:>9.1f} "
        if found.gflop and found.precision in self.rates:
            gflops = found.gflop / found.seconds
            row |= {"tflops": gflops / 1e3, "share": gflops / self.rates[found.precision]}
            text += f"{row['tflops']:>8.1f} {100 * row['share']:>5.0f}% "
        else:
            text += f"{'':>8} {'':>6} "
        self.rows[part] = row | ({"note": found.note} if found.note else {})
        print(f"{text}{memory:>6.2f} {found.note}", flush=True)

    def _write(self) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        rates = {name: round(rate / 1e3, 1) for name, rate in self.rates.items()}
        facts = {**machine(self.device), "matrix_tflops": rates, "rows": self.rows}
        write_text(self.out, json.dumps(facts, indent=1))


class Settings(NamedTuple):
    """Models and sizes to measure: the real ones on a GPU, small ones in a dry run."""

    small: str
    published: str
    size: int
    training: tuple[tuple[str, tuple[int, ...]], ...]
    batches: tuple[int, ...]
    repeats: int
    steps: int


FULL = Settings(SMALL, PUBLISHED, 256, ((SMALL, (8, 64, 256)), (PUBLISHED, (1, 8))), (1, 4, 16), 10, 20)
DRY = Settings(TINY, TINY, 32, ((TINY, (2,)),), (1, 2), 1, 2)


def main(arguments: list[str] | None = None) -> int:
    """Measure every row; return 1 if one failed."""
    options = _parse(arguments)
    device = usable_device(options.device)
    settings = DRY if options.dry_run else FULL
    report = Report(options.out, device, options.resume, options.seconds)
    print(f"{machine(device)['device']}, torch {torch.__version__}", flush=True)
    for precision in ("bfloat16", "float32"):
        report.rate(precision, 128 if options.dry_run else None)
    print(HEADER, flush=True)
    for name, batches in settings.training:
        with _building(report, name, options.compile) as model:
            if model is not None:
                for batch in batches:
                    _training(report, model.to(device), name, batch, settings, False)
                if options.compile:
                    _training(report, model, name, batches[len(batches) // 2], settings, True)
                model.zero_grad(set_to_none=True)
                _sampling(report, model.eval(), name, settings, options.compile)
        del model
    print(f"written to {options.out}")
    return int(any("error" in row for row in report.rows.values()))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="cuda or cpu (default: the fastest available)")
    parser.add_argument(
        "--dry-run", action="store_true", help="run every row with small models, on a machine without a GPU"
    )
    parser.add_argument("--resume", action="store_true", help="keep the rows already in --out")
    parser.add_argument(
        "--seconds", type=float, default=70, help="start no row later than this (default: 70)"
    )
    parser.add_argument(
        "--compile", action="store_true", help="also measure with torch.compile, which takes minutes"
    )
    out = Path("results/benchmark_gpu.json")
    parser.add_argument("--out", type=Path, default=out, help=f"output file (default: {out})")
    return parser.parse_args(arguments)


@contextmanager
def _building(report: Report, name: str, compiles: bool) -> Iterator[LatentDiffusion | None]:
    """Build the model of a config with random weights, on which time does not depend; None if it fails."""
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"), resolve=False)
        torch.manual_seed(0)
        model = random_model(config, warmup_steps=0, scale_by_std=False).train()
        model.learning_rate = 1e-6
        model.log_dict = lambda *a, **k: None  # type: ignore[method-assign]
    except Exception as error:
        report.row(f"{name}: building the model", partial(_reraise, error))
        yield None
        return
    yield model


def _reraise(error: Exception) -> Found:
    raise error


def _median(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Return the median of three mean times of `repeats` calls without a wait between them, in seconds."""
    call()
    finish(device)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        finish(device)
        times.append((time.perf_counter() - started) / repeats)
    return sorted(times)[1]


def _gflop(call: Callable[[], Any]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def _training(
    report: Report, model: LatentDiffusion, name: str, batch: int, settings: Settings, compiled: bool
) -> None:
    """Measure a training step in bfloat16: forward and backward pass, optimizer and averages."""
    device = report.device

    def measure() -> Found:
        few = cached_batch(model, settings.size, min(batch, 4), device)
        data = {key: torch.cat([value] * -(-batch // len(value)))[:batch] for key, value in few.items()}
        optimizer = model.configure_optimizers()
        model.batch_index = BatchIndex(seed=0, batch=0)

        def passes() -> None:
            with torch.autocast(device.type, torch.bfloat16):
                loss = model.training_step(data, 0)
            loss.backward()

        def step() -> None:
            passes()
            optimizer.step()
            optimizer.zero_grad()
            model._emas().update()

        gflop = _gflop(passes)
        eager = model.unet.denoise
        if compiled:
            model.unet.denoise = torch.compile(eager)
        try:
            seconds = _median(step, device, settings.repeats)
            inner = _median(passes, device, settings.repeats)
        finally:
            model.unet.denoise = eager
            model.zero_grad(set_to_none=True)
        note = f"floor {1e3 * gflop / report.rates['bfloat16']:.1f} ms, passes {1e3 * inner:.1f} ms"
        return Found(seconds, batch, gflop, note=note)

    how = ", compiled" if compiled else ""
    report.row(f"{name}: training step, bf16, batch {batch}{how}", measure)


def _sampling(report: Report, model: LatentDiffusion, name: str, settings: Settings, compiles: bool) -> None:
    """Measure the parts of sampling: steps, CUDA graphs, the decoder and whole images."""
    device = report.device
    for batch in settings.batches:
        for precision in ("bfloat16", "float32") if batch == 1 else ("bfloat16",):
            part = f"{name}: step, {precision}, batch {batch}"
            report.row(part, partial(_step, model, batch, precision, settings, device, None))
        if device.type == "cuda" and batch in settings.batches[:1]:
            part = f"{name}: step, bfloat16, batch {batch}, CUDA graph"
            report.row(part, partial(_step, model, batch, "bfloat16", settings, device, "cudagraphs"))
    for precision in ("bfloat16", "float32"):
        report.row(f"{name}: decode, {precision}", partial(_decode, model, precision, settings, device))
    for batch in (1, settings.batches[-1]):
        part = f"{name}: whole image, {settings.steps} steps, bf16, batch {batch}"
        report.row(part, partial(_image, model, batch, settings, device, False))
    if compiles:
        part = f"{name}: whole image, {settings.steps} steps, bf16, batch 1, compiled"
        report.row(part, partial(_image, model, 1, settings, device, True))


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _latents(model: LatentDiffusion, batch: int, size: int, device: torch.device) -> Tensor:
    side = size // model.first_stage_model.factor
    return torch.randn(batch, model.channels, side, side, device=device)


@torch.no_grad()
def _step(
    model: LatentDiffusion, batch: int, precision: str, s: Settings, device: torch.device, backend: str | None
) -> Found:
    """Measure the step that the sampler repeats, with cached conditioning."""
    data = cached_batch(model, s.size, 1, device)
    cond = model.conditions(data)
    cond = {key: value.expand(batch, *value.shape[1:]) for key, value in cond.items()}
    z, t = _latents(model, batch, s.size, device), torch.full((batch,), 500, device=device)
    eager = model.unet.denoise
    with _autocast(device, precision):
        ready = model.prepare(cond, (z.shape[-2], z.shape[-1]))
        gflop = _gflop(lambda: model.apply_model(z, t, ready))
        if backend:
            model.unet.denoise = torch.compile(eager, backend=backend, dynamic=False)
        try:
            for _ in range(2):  # the first calls record the graph
                model.apply_model(z, t, ready)
            seconds = _median(lambda: model.apply_model(z, t, ready), device, s.repeats)
        finally:
            model.unet.denoise = eager
    return Found(seconds, batch, gflop, precision)


@torch.no_grad()
def _decode(model: LatentDiffusion, precision: str, s: Settings, device: torch.device) -> Found:
    z = _latents(model, 1, s.size, device)
    with _autocast(device, precision):
        gflop = _gflop(lambda: model.decode_first_stage(z))
        seconds = _median(lambda: model.decode_first_stage(z), device, s.repeats)
    return Found(seconds, 1, gflop, precision)


def _image(model: LatentDiffusion, batch: int, s: Settings, device: torch.device, compiled: bool) -> Found:
    """Measure sampling through the pipeline, from label map and style code to image."""
    from ldm.pipeline import FacePipeline
    from ldm.pipeline.pretrained import compile_step, label_set_of

    pipe = FacePipeline(model, label_set_of({}, model), (s.size, s.size), "bfloat16")
    labels = cached_batch(model, s.size, 1, torch.device("cpu"))["labels"].expand(batch, -1, -1)
    style = [pipe.null_style(labels[0])] * batch
    eager, started = model.unet.denoise, time.perf_counter()
    if compiled:
        compile_step(model)
    try:
        pipe(labels, style, steps=s.steps)
        finish(device)
        first = time.perf_counter() - started
        seconds = _median(lambda: pipe(labels, style, steps=s.steps), device, 1)
    finally:
        model.unet.denoise = eager
    return Found(seconds, batch, note=f"first call {first:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
