"""Part of `make gpu`: time sampling, as steps, decoder and whole images; eager, as a CUDA graph and compiled."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch

from ldm.pipeline import FacePipeline
from ldm.pipeline.pretrained import compile_step, label_set_of
from scripts.benchmarking import cached_batch
from scripts.gpu.models import (
    FACES,
    PUBLISHED,
    TINY,
    Loaded,
    Models,
    bfloat16_weights,
    gflop_of,
    in_layout,
    own_denoise,
)
from scripts.gpu.report import Report, Row, part_options, without_tf32
from scripts.gpu.timing import median_time

STEPS, IMAGES = "image steps/s", "images/s"
COMPILE_SECONDS = {PUBLISHED: 90.0, FACES: 40.0, TINY: 3.0}


class Settings(NamedTuple):
    """What to measure."""

    models: tuple[str, ...] = (PUBLISHED, FACES)
    batches: tuple[int, ...] = (1, 4, 16)
    compiled: tuple[int, ...] = (16, 1, 4)
    repeats: int = 10
    steps: int = 20
    backend: str = "inductor"
    matrix: int | None = None


SMALL = Settings((TINY,), (1, 2), (1,), 1, 2, "aot_eager", 128)


class How(NamedTuple):
    """How a step is computed."""

    precision: str = "bfloat16"
    channels_last: bool = False
    half_weights: bool = False
    run: str = "eager"  # or "CUDA graph" or "compiled"

    def __str__(self) -> str:
        layout = ["channels last"] if self.channels_last else []
        weights = ["bfloat16 weights"] if self.half_weights else []
        return ", ".join([self.precision, *layout, *weights, self.run])


def main(arguments: list[str] | None = None) -> int:
    """Measure every row; return 1 if one has no result."""
    options = part_options(__doc__, arguments)
    settings = SMALL if options.dry_run else Settings()
    report = options.report()
    report.measure_rates(settings.matrix)
    return report.run(list(rows(Sampling(report, Models(options.device, options.dry_run), settings))))


def rows(measured: Sampling) -> Iterator[Row]:
    """Yield the rows, those that take minutes last."""
    s, on_gpu = measured.settings, measured.report.device.type == "cuda"
    for name in s.models:
        layouts = (False, True) if name != FACES else (False,)  # faces-256 is in channels-last format itself
        ways = [How(channels_last=layout) for layout in layouts]
        graphs = [How(run="CUDA graph"), *(How("bfloat16", layout, True, "CUDA graph") for layout in layouts)]
        for batch in s.batches:
            for how in [*ways, *(graphs if on_gpu else [How(half_weights=True)])]:
                yield step_row(measured, name, batch, how)
        yield step_row(measured, name, 1, How("float32"))
        for precision in ("bfloat16", "float32"):
            yield Row(f"{name}: decode, {precision}, batch 1", partial(measured.decode, name, precision))
        for batch in sorted({s.batches[0], s.batches[-1]}):
            yield Row(
                f"{name}: whole image, {s.steps} steps, bfloat16, batch {batch}, eager",
                partial(measured.image, name, batch, False),
            )
    for batch in s.compiled:
        for name in s.models:
            yield step_row(measured, name, batch, How(run="compiled"))
    for name in s.models if on_gpu else ():  # as much again to compile
        yield step_row(measured, name, 1, How(half_weights=True, run="compiled"))
        what = f"{name}: whole image, {s.steps} steps, bfloat16, batch 1, compiled"
        yield Row(what, partial(measured.image, name, 1, True), COMPILE_SECONDS[name])


def step_row(measured: Sampling, name: str, batch: int, how: How) -> Row:
    """Return the row of a step."""
    seconds = COMPILE_SECONDS[name] if how.run == "compiled" else 3.0
    return Row(f"{name}: step, batch {batch}, {how}", partial(measured.step, name, batch, how), seconds)


class Sampling:
    """The measurements; each returns the values of a row."""

    def __init__(self, report: Report, models: Models, settings: Settings) -> None:
        self.report, self.models, self.settings = report, models, settings

    @torch.no_grad()
    def step(self, name: str, batch: int, how: How) -> dict[str, Any]:
        """Measure the step that the sampler repeats, with cached conditioning."""
        loaded = self.models(name)
        model, device = loaded.model.eval(), self.report.device
        cond = model.conditions(cached_batch(model, loaded.size, 1, device))
        cond = {key: value.expand(batch, *value.shape[1:]) for key, value in cond.items()}
        side = loaded.size // model.first_stage_model.factor
        z, t = (
            torch.randn(batch, model.channels, side, side, device=device),
            torch.full((batch,), 500, device=device),
        )
        with ExitStack() as stack:
            stack.enter_context(own_denoise(model))
            stack.enter_context(self._computing(how, model))
            ready = model.prepare(cond, (side, side))

            def step() -> Any:
                return model.apply_model(z, t, ready)

            gflop, started = gflop_of(step), time.perf_counter()
            seconds = median_time(self._prepared(step, model, how), device, self.settings.repeats)
            total = time.perf_counter() - started
        return self.report.timing(seconds, batch, STEPS, how.precision, gflop, total_s=round(total, 1))

    def _computing(self, how: How, model: Any) -> ExitStack:
        """Return the context of precision and layout."""
        stack = ExitStack()
        stack.enter_context(in_layout(model, how.channels_last))
        stack.enter_context(bfloat16_weights(model.unet) if how.half_weights else nullcontext())
        # What autocast's cache holds would be outside of the graph, and freed while the graph still reads it.
        cached, half = how.run != "CUDA graph", how.precision == "bfloat16"
        kind = self.report.device.type
        stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=half, cache_enabled=cached))
        stack.enter_context(nullcontext() if half else without_tf32())
        return stack

    def _prepared(self, step: Callable[[], Any], model: Any, how: How) -> Callable[[], Any]:
        """Return the function to time."""
        if how.run == "CUDA graph":
            return captured(step)
        if how.run == "compiled":
            compile_step(model, self.settings.backend)
            for _ in range(3):  # compile, warm up, record the CUDA graph
                step()
        return step

    @torch.no_grad()
    def decode(self, name: str, precision: str) -> dict[str, Any]:
        """Measure the decoder for one image."""
        loaded = self.models(name)
        model = loaded.model.eval()
        side = loaded.size // model.first_stage_model.factor
        z = torch.randn(1, model.channels, side, side, device=self.report.device)
        with self._computing(How(precision), model):
            gflop = gflop_of(lambda: model.decode_first_stage(z))
            seconds = median_time(
                lambda: model.decode_first_stage(z), self.report.device, self.settings.repeats
            )
        return self.report.timing(seconds, 1, IMAGES, precision, gflop)

    def image(self, name: str, batch: int, compiled: bool) -> dict[str, Any]:
        """Measure the pipeline, from label map and style code to image."""
        loaded = self.models(name)
        model = loaded.model.eval()
        pipe = FacePipeline(model, label_set_of({}, model), (loaded.size, loaded.size), "bfloat16")
        labels = labels_of(loaded).expand(batch, -1, -1)
        style = [pipe.null_style(labels[0])] * batch

        def sample() -> Any:
            return pipe(labels, style, steps=self.settings.steps)

        with own_denoise(model):
            gflop = gflop_of(sample)
            if compiled:
                compile_step(model, self.settings.backend)
            started = time.perf_counter()
            sample()
            first = time.perf_counter() - started
            seconds = median_time(sample, self.report.device, 1)
        return self.report.timing(seconds, batch, IMAGES, "bfloat16", gflop, first_s=round(first, 2))


def labels_of(loaded: Loaded) -> torch.Tensor:
    """Return a label map (1, H, W) on the CPU."""
    return cached_batch(loaded.model, loaded.size, 1, torch.device("cpu"))["labels"]


def captured(step: Callable[[], Any]) -> Callable[[], Any]:
    """Return the replay of a CUDA graph of `step`, which must not wait for the device."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()

    def replay() -> Any:
        graph.replay()
        return output

    return replay


if __name__ == "__main__":
    sys.exit(main())
