"""Part of `make gpu`: throughput and peak memory of training steps in bfloat16."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from scripts.gpu.models import FACES, PUBLISHED, TINY, Models, batch_of, gflop_of, in_layout, own_denoise
from scripts.gpu.report import Report, Row, part_options
from scripts.gpu.timing import median_time
from scripts.gpu.trainer_step import TrainerStep


class Settings(NamedTuple):
    """What to measure."""

    models: tuple[str, ...] = (PUBLISHED, FACES)
    batches: tuple[int, ...] = (8, 16, 32, 64)
    compiled: tuple[tuple[str, int, float], ...] = (
        (FACES, 64, 60),
        (PUBLISHED, 16, 150),
    )  # batch, least seconds
    repeats: int = 4
    backend: str = "inductor"
    matrix: int | None = None


SMALL = Settings((TINY,), (2,), ((TINY, 2, 3),), 1, "aot_eager", 128)


def main(arguments: list[str] | None = None) -> int:
    """Measure every row; return 1 if one has no result."""
    options = part_options(__doc__, arguments)
    settings = SMALL if options.dry_run else Settings()
    report = options.report()
    report.measure_rates(settings.matrix)
    return report.run(list(rows(Training(report, Models(options.device, options.dry_run), settings))))


def rows(measured: Training) -> Iterator[Row]:
    """Yield the rows, those that take minutes last."""
    for name in measured.settings.models:
        # faces-256 is in channels-last format itself.
        for channels_last, how in [(False, ""), *([(True, ", channels last")] if name != FACES else [])]:
            for batch in measured.settings.batches:
                what = f"{name}: training step, batch {batch}, bfloat16{how}, eager"
                yield Row(what, partial(measured.step, name, batch, channels_last, False))
    for name, batch, seconds in measured.settings.compiled:
        what = f"{name}: training step, batch {batch}, bfloat16, compiled"
        yield Row(what, partial(measured.step, name, batch, False, True), seconds)


class Training:
    """The measurements; each returns the values of a row."""

    def __init__(self, report: Report, models: Models, settings: Settings) -> None:
        self.report, self.models, self.settings = report, models, settings

    def step(self, name: str, batch: int, channels_last: bool, compiled: bool) -> dict[str, Any]:
        """Measure a training step: forward and backward pass, clipping, optimizer and averages."""
        loaded, device = self.models(name), self.report.device
        model = loaded.model.train()
        with ExitStack() as stack:
            stack.enter_context(own_denoise(model))
            stack.enter_context(in_layout(model, channels_last))
            step = TrainerStep(model, loaded.clip, batch_of(loaded, batch))
            stack.callback(step.close)
            gflop = gflop_of(step.passes)
            if compiled:
                model.compiled_by = self.settings.backend
                stack.callback(setattr, model, "compiled_by", False)
                model.on_fit_start()
            seconds = median_time(step, device, self.settings.repeats)
            passes = median_time(step.passes, device, self.settings.repeats)
        optimizer = "fused AdamW" if step.optimizer.defaults["fused"] else "AdamW"
        how = f"{optimizer}, {f'clipped at {loaded.clip}' if loaded.clip else 'not clipped'}"
        parts = {"passes_ms": 1e3 * passes, "optimizer": how}
        return self.report.timing(seconds, batch, "images/s", "bfloat16", gflop, **parts)


if __name__ == "__main__":
    sys.exit(main())
