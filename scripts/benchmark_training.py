"""Benchmark a training step part by part: time, FLOPs, and the share of this machine's matrix rate.

The step is the trainer's: cached latents, the config's optimizer and EMA, random weights. Operations are
those of the forward and the backward pass.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

if TYPE_CHECKING:
    from ldm.models.diffusion import LatentDiffusion

FASTER = {
    "channels_last": True,
    "step_in_backward": True,
    "bf16_first_moment": True,
}  # and use_checkpoint: cheap


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write it as JSON."""
    options = _parse(arguments)

    if not options.published:
        from ldm.training.low_memory import ask_for_huge_pages

        ask_for_huge_pages()
    from ldm.checkpoints.locate import usable_device
    from scripts.benchmarking import Row, machine, matrix_rate, publish

    try:
        device = usable_device(options.device)
        parts = _Step(options, device)
    except ValueError as error:
        print(f"benchmark_training.py: error: {error}", file=sys.stderr)
        return 2
    gflop = parts.operations()
    runs, rates = [], []
    for _ in range(
        options.repeats + 1
    ):  # the machine's rate before each step: a shared one has good and bad minutes
        rates.append(matrix_rate(options.precision, device))
        print(f"matrix rate {rates[-1]:.0f} GFLOP/s; {gflop:,.0f} GFLOP a step", file=sys.stderr, flush=True)
        runs.append(parts.take())
    runs, rate = runs[1:], statistics.median(rates[1:])  # the first step makes the optimizer's state
    rows = []
    for name in runs[0]:
        seconds = statistics.median(run[name] for run in runs)
        counted = gflop if name == "whole step" else 0.0
        share = counted / seconds / rate if counted else None
        note = f"{options.batch / seconds:.2f} images/s" if counted else ""
        rows.append(Row(name, counted, seconds, share, note))
    facts = {
        **machine(device),
        "batch": options.batch,
        "precision": options.precision,
        "matrix_gflops": round(rate, 1),
        "matrix_gflops_by_step": [round(each, 1) for each in rates[1:]],
        "floor_s": round(gflop / rate, 2),
    }
    publish(rows, facts, options.out)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("configs/latent-diffusion/celebamask-hq.yaml"),
        help="config of the model, which gets random weights (default: the published model)",
    )
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels (256)")
    parser.add_argument("--batch", type=int, default=1, help="batch size (default: 1)")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest available)")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="precision (default: float32)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the UNet with torch.compile")
    parser.add_argument(
        "--published",
        action="store_true",
        help="baseline: AdamW after the backward pass, float32 moments, contiguous memory format, no recomputation",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="steps, of which the median is reported (default: 3)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/benchmark_training.json"),
        help="output file (default: results/benchmark_training.json)",
    )
    return parser.parse_args(arguments)


def _model(options: argparse.Namespace) -> LatentDiffusion:
    import torch

    from ldm.checkpoints.config_files import read_yaml
    from scripts.benchmarking import random_model

    config: Any = read_yaml(options.config)
    faster = {} if options.published else FASTER
    torch.manual_seed(0)
    model = random_model(config, warmup_steps=0, scale_by_std=False, **faster).train()
    if not options.published:
        model.unet.use_checkpoint = "cheap"
    model.learning_rate = 1e-6
    return model


class _Step:
    """A training step of a model with random weights, on one batch of generated faces."""

    def __init__(self, options: argparse.Namespace, device: Any) -> None:
        from ldm.checkpoints.model_size import bytes_of
        from ldm.training.low_memory import return_large_blocks
        from scripts.benchmarking import cached_batch

        self.options, self.device = options, device
        self.model = _model(options).to(device)
        if not options.published:
            return_large_blocks(bytes_of(self.model))
        self.model.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
        self.batch = cached_batch(self.model, options.size, options.batch, device)
        self.optimizer = self.model.configure_optimizers()

    def operations(self) -> float:
        """Return the GFLOP of forward and backward pass."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self._loss().backward()
        self.optimizer.zero_grad()
        if self.options.compile:  # only now, since the counter does not see into compiled code
            self.model.unet.denoise = torch.compile(self.model.unet.denoise)
        return counter.get_total_flops() / 1e9

    def take(self) -> dict[str, float]:
        """Take one step and return the seconds of its parts."""
        from scripts.benchmarking import finish

        seconds: dict[str, float] = {}

        def timed(name: str, call: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            result = call()
            finish(self.device)
            seconds[name] = time.perf_counter() - started
            return result

        def closure() -> Any:
            self.optimizer.zero_grad()
            loss = timed("forward", self._loss)
            timed("backward", loss.backward)
            return loss

        def update_emas() -> None:
            for average, module, _ in self.model._emas():
                average.update(module)

        started = time.perf_counter()
        self.optimizer.step(closure)
        finish(self.device)
        seconds["optimizer, after the backward pass"] = (
            time.perf_counter() - started - seconds["forward"] - seconds["backward"]
        )
        timed("averages", update_emas)
        seconds["whole step"] = time.perf_counter() - started
        return seconds

    def _loss(self) -> Any:
        import torch

        enabled = self.options.precision != "float32"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            return self.model.training_step(self.batch, 0)


if __name__ == "__main__":
    sys.exit(main())
