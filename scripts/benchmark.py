"""Benchmark sampling part by part: time, FLOPs, and the share of this machine's matrix rate."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

import ldm  # noqa: F401 (sets OMP_WAIT_POLICY, before torch is imported)
from scripts.benchmarking import Row, finish, machine, matrix_rate, publish

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ldm.data.labels import LabelSet
    from ldm.models.diffusion import LatentDiffusion
    from ldm.pipeline.pretrained import Precision

PRECISIONS = ("float32", "bfloat16", "float16")
CONDITION = "condition, once per image"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write it as JSON."""
    options = _parse(arguments)
    import torch

    from ldm.pipeline import usable_device

    torch.manual_seed(0)
    try:
        device = usable_device(options.device)
        model, label_set = _model(options)
    except ValueError as error:
        print(f"benchmark.py: error: {error}", file=sys.stderr)
        return 2
    bench = Benchmark(model.to(device), label_set, device, options)
    bench.run()
    facts = {
        **machine(device),
        "size": options.size,
        "matrix_gflops": {name: round(rate, 1) for name, rate in bench.rates.items()},
        "conditioning_mib": round(bench.conditioning_bytes / 2**20, 1),
    }
    publish(bench.rows, facts, options.out)
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
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest available)")
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="measurements of each part, of which the median is reported (default: 3)",
    )
    parser.add_argument(
        "--batches",
        type=_batches,
        default=[1, 2, 4],
        help="batch sizes of the cached step in addition to 1 (default: 1,2,4)",
    )
    parser.add_argument(
        "--precisions",
        type=_precisions,
        help="precisions of the cached step in addition to float32, such as bfloat16,float16 (default: bfloat16 "
        "where the device computes in it natively)",
    )
    parser.add_argument(
        "--compile", action="store_true", help="also measure the cached step with torch.compile"
    )
    parser.add_argument("--steps", type=int, default=20, help="solver steps of the whole image (default: 20)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/benchmark.json"),
        help="output file (default: results/benchmark.json)",
    )
    return parser.parse_args(arguments)


def _batches(text: str) -> list[int]:
    sizes = sorted({1, *map(int, text.split(","))})
    if sizes[0] < 1:
        raise argparse.ArgumentTypeError(f"sizes must be at least 1, got {text}")
    return sizes


def _precisions(text: str) -> list[str]:
    for name in text.split(","):
        if name not in PRECISIONS:
            raise argparse.ArgumentTypeError(f"unknown precision {name!r}; there are {', '.join(PRECISIONS)}")
    return ["float32", *(name for name in text.split(",") if name != "float32")]


def _model(options: argparse.Namespace) -> tuple[LatentDiffusion, LabelSet]:
    from ldm.checkpoints.config_files import read_yaml
    from ldm.pipeline.pretrained import label_set_of
    from scripts.benchmarking import random_model

    config: Any = read_yaml(options.config)
    model = random_model(config, use_ema=False).eval()
    return model, label_set_of(config, model)


class Benchmark:
    """The measurements of one model on one device."""

    def __init__(
        self, model: LatentDiffusion, label_set: LabelSet, device: torch.device, options: argparse.Namespace
    ) -> None:
        self.model, self.label_set, self.device, self.options = model, label_set, device, options
        self.rows: list[Row] = []
        self.rates: dict[str, float] = {}  # GFLOP/s of plain matrix products, by precision
        self.conditioning_bytes = 0

    def run(self) -> None:
        """Measure everything."""
        import torch

        from ldm.modules.precision import native_bfloat16

        with torch.no_grad():
            self.rates["float32"] = matrix_rate("float32", self.device, self.options.repeats)
            self._networks()
            usual: list[Precision] = ["float32"]
            if native_bfloat16(self.device):
                usual.append("bfloat16")
            precisions: list[Precision] = self.options.precisions or usual
            for precision in precisions:
                self._cached_steps(precision)
            for precision in precisions:
                self._whole_images(precision)

    def _inputs(self, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return an image, its mask, noisy latents and timesteps."""
        import torch

        from ldm.data.labels import one_hot
        from ldm.data.synthetic.dataset import SyntheticFaces

        model, size = self.model, self.options.size
        face = SyntheticFaces(size, 1, seed=0)[0]
        image = face["image"].to(self.device).expand(batch, -1, -1, -1)
        labels = self._labels(face).to(self.device).expand(batch, -1, -1)
        side = size // model.first_stage_model.factor
        z = torch.randn(batch, model.channels, side, side, device=self.device)
        t = torch.full((batch,), 500, device=self.device)
        return image, one_hot(labels, model.num_regions), z, t

    def _labels(self, face: dict[str, Any]) -> Tensor:
        """Return a face's label map in the numbers that the model has, perhaps fewer than the face's."""
        return face["labels"] % len(self.label_set)

    def _networks(self) -> None:
        from ldm.pipeline.memory import bytes_of

        model, (image, mask, z, t) = self.model, self._inputs(1)
        self._measure("encode", lambda: model.encode_first_stage(image))
        self._measure("style code", lambda: model.get_learned_conditioning(image, mask))
        cond: Any = {"context": model.get_learned_conditioning(image, mask), "y": mask}
        size = (z.shape[-2], z.shape[-1])
        ready = model.prepare(cond, size)
        self.conditioning_bytes = bytes_of(ready["prepared"])
        self._measure(CONDITION, lambda: model.prepare(cond, size))
        self._measure("step, plain", lambda: model.apply_model(z, t, cond))
        self._measure("decode", lambda: model.decode_first_stage(z))

    def _cached_steps(self, precision: str) -> None:
        from ldm.pipeline.pretrained import compile_step

        if precision not in self.rates:
            self.rates[precision] = matrix_rate(precision, self.device, self.options.repeats)
        for batch in self.options.batches:
            image, mask, z, t = self._inputs(batch)
            style = self.model.get_learned_conditioning(image, mask)
            cond: Any = {"context": style, "y": mask}
            size = (z.shape[-2], z.shape[-1])
            with self._cast(precision):
                ready = self.model.prepare(cond, size)
            if precision != "float32" and batch == 1:  # parts of an image that the pipeline runs in it
                self._measure(f"{CONDITION}, {precision}", partial(self.model.prepare, cond, size), precision)
                self._measure(f"decode, {precision}", partial(self.model.decode_first_stage, z), precision)
            title = f"step, cached, {precision}, batch {batch}"
            self._measure(title, partial(self.model.apply_model, z, t, ready), precision, batch)
            if self.options.compile and batch == 1:
                eager = self.model.unet.denoise
                compile_step(self.model)
                call = partial(self.model.apply_model, z, t, ready)
                self._measure(f"{title}, compiled", call, precision, batch)
                self.model.unet.denoise = eager

    def _whole_images(self, precision: Precision) -> None:
        """Measure an image from label map and photo to pixels; the style encoder stays in float32."""
        from ldm.data.synthetic.dataset import SyntheticFaces
        from ldm.pipeline import FacePipeline

        size = self.options.size
        face = SyntheticFaces(size, 1, seed=0)[0]
        pipe = FacePipeline(self.model, self.label_set, (size, size), precision)
        steps = self.options.steps

        def make(steps: int) -> None:
            style = pipe.read_style(face["image"], self._labels(face))
            pipe(self._labels(face), style, steps=steps)
            finish(self.device)

        make(1)  # chooses kernels and converts weights
        started = time.perf_counter()
        make(steps)
        seconds = time.perf_counter() - started
        parts = {row.part: row for row in self.rows}
        suffix = "" if precision == "float32" else f", {precision}"
        style, step = parts["style code"], parts[f"step, cached, {precision}, batch 1"]
        once = [parts[f"{CONDITION}{suffix}"], parts[f"decode{suffix}"]]
        for count, found in ((steps, seconds), (200, None)):
            gflop = sum(row.gflop for row in once) + count * step.gflop  # in `precision`
            floor = style.gflop / self.rates["float32"] + gflop / self.rates[precision]
            summed = style.seconds + sum(row.seconds for row in once) + count * step.seconds
            taken, note = (summed, "sum of its parts") if found is None else (found, "measured")
            name = f"whole image, {count} steps, {precision}"
            self.rows.append(Row(name, style.gflop + gflop, taken, floor / taken, note))

    def _measure(
        self, part: str, call: Callable[[], object], precision: str = "float32", batch: int = 1
    ) -> None:
        """Time `call` and add its row; seconds are of the whole batch."""
        from torch.utils.flop_counter import FlopCounterMode

        with self._cast(precision):
            with FlopCounterMode(display=False) as counter:
                call()
            finish(self.device)
            times = []
            for _ in range(self.options.repeats):
                started = time.perf_counter()
                call()
                finish(self.device)
                times.append(time.perf_counter() - started)
        seconds, gflop = statistics.median(times), counter.get_total_flops() / 1e9
        note = f"{batch / seconds:.2f} image steps/s" if batch > 1 else ""
        if part.endswith("compiled"):  # the counter does not see into compiled code
            gflop = self.rows[-1].gflop
        self.rows.append(Row(part, gflop, seconds, gflop / seconds / self.rates[precision], note))
        print(f"{part}: {seconds:.3f} s", file=sys.stderr, flush=True)

    def _cast(self, precision: str) -> AbstractContextManager[Any]:
        import torch

        if precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, precision))


if __name__ == "__main__":
    sys.exit(main())
