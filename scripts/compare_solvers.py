"""Compare solvers, steps, guidance and precision by the distance of their latents from 1,000 steps of DDIM.

The distance is the root mean square difference, relative to the standard deviation of the latents. The last
table is of the images: what bfloat16 changes in them, in the UNet, in the decoder and in both, beside what
fewer steps change. Prints the tables of docs/sampling.md for any weights; bfloat16 only on devices that have
it natively:

  python scripts/compare_solvers.py checkpoints/demo --data assets/faces
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

import torch
from torch import Tensor

from ldm.data.images import load_image
from ldm.data.label_maps import load_labels
from ldm.modules.precision import native_bfloat16
from ldm.pipeline import FacePipeline
from ldm.pipeline.image_sampler import ImageSampler, SamplingInputs
from ldm.pipeline.options import Sampling, validate_options

# Solver, its other options, and numbers of steps.
SOLVERS: tuple[tuple[dict[str, Any], tuple[int, ...]], ...] = (
    ({"solver": "ddim"}, (20, 50, 100)),
    ({"solver": "dpmpp_2m"}, (5, 8, 10, 12, 15, 20)),
    ({"solver": "unipc", "order": 2}, (5, 8, 10, 12, 15, 20)),
    ({"solver": "unipc", "order": 3}, (5, 8, 10, 12, 15, 20)),
)
INTERVALS: tuple[tuple[float, float] | None, ...] = (None, (0.2, 5.0), (0.5, 5.0), (0.2, 20.0), (0.5, 20.0))


class LatentSampler(ImageSampler):
    """Samples latents (B, C, h, w) and does not decode them."""

    def _images(self, z: Tensor, options: Sampling) -> Tensor:
        return z.float()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="weights, as for sca-dm")
    parser.add_argument(
        "--data", type=Path, default=Path("assets/faces"), help="folder of images/ and labels/"
    )
    parser.add_argument("--count", type=int, default=6, help="number of faces (default: 6)")
    parser.add_argument(
        "--guidance", type=float, nargs="+", default=[1.0, 1.5], help="guidance scales (default: 1 1.5)"
    )
    parser.add_argument(
        "--reference", type=int, default=1000, metavar="STEPS", help="DDIM steps of the reference (1000)"
    )
    parser.add_argument("--device", default=None, help="cpu, cuda or mps (default: the fastest available)")
    options = parser.parse_args(arguments)
    pipe = FacePipeline.from_pretrained(options.checkpoint, device=options.device, precision="float32")
    inputs = _inputs(pipe, options.data, options.count)
    for guidance in options.guidance:
        Comparison(pipe, inputs, guidance, options.reference).print()
    return 0


def _inputs(pipe: FacePipeline, data: Path, count: int) -> SamplingInputs:
    names = sorted(file.stem for file in (data / "labels").glob("*.png"))[:count]
    if not names:
        raise SystemExit(f"{data}: no PNG in labels/; expected images/NAME and labels/NAME.png")
    images, labels = [], []
    for name in names:
        (file,) = (data / "images").glob(f"{name}.*")
        images.append(load_image(file, pipe.size))
        labels.append(load_labels(data / "labels" / f"{name}.png", pipe.label_set, pipe.size))
    styles = pipe.read_style(torch.stack(images), torch.stack(labels))
    return SamplingInputs(torch.stack(labels), torch.stack([style.codes for style in styles]))


class Comparison:
    """Distances of latents and images from those of many DDIM steps, at one guidance scale."""

    def __init__(self, pipe: FacePipeline, inputs: SamplingInputs, guidance: float, reference: int) -> None:
        """Sample the reference."""
        self.inputs, self.guidance, self.reference = inputs, guidance, reference
        self.samplers = {"float32": LatentSampler(pipe.model, pipe.label_set, torch.float32)}
        if native_bfloat16(pipe.device):
            self.samplers["bfloat16"] = LatentSampler(pipe.model, pipe.label_set, torch.bfloat16)
        self.exact = self._latents("float32", solver="ddim", steps=reference)

    def print(self) -> None:
        """Print the tables."""
        print(f"\nguidance {self.guidance:g}")
        self._solvers()
        if self.guidance != 1:
            self._intervals()
        if "bfloat16" in self.samplers:
            self._images()

    def _solvers(self) -> None:
        _header("solver", "steps", *self.samplers)
        for how, all_steps in SOLVERS:
            name = how["solver"] + (f", order {how['order']}" if "order" in how else "")
            for steps in all_steps:
                row = [self._distance(self._latents(one, steps=steps, **how)) for one in self.samplers]
                _row(name, steps, *row)

    def _intervals(self) -> None:
        _header("guidance only for sigma in", "distance from guidance at all steps")
        for interval in INTERVALS:
            found = self._latents("float32", solver="dpmpp_2m", steps=20, guidance_interval=interval)
            _row("all" if interval is None else "{:g} to {:g}".format(*interval), self._distance(found))

    def _images(self) -> None:
        """Print the differences between images in levels of 255."""
        exact = self._decoded("float32", self.exact)
        latents = {name: self._latents(name, solver="dpmpp_2m", steps=20) for name in self.samplers}
        full = self._decoded("float32", latents["float32"])
        cases = {
            f"20 steps of dpmpp_2m, from {self.reference:,} of ddim": full - exact,
            "decoder in bfloat16": self._decoded("bfloat16", latents["float32"]) - full,
            "UNet in bfloat16": self._decoded("float32", latents["bfloat16"]) - full,
            "UNet and decoder in bfloat16": self._decoded("bfloat16", latents["bfloat16"]) - full,
        }
        _header("images", "mean", "99.9 % of the values", "largest")
        for name, difference in cases.items():
            levels = 127.5 * difference.abs().flatten().double()
            high = levels.kthvalue(math.ceil(0.999 * len(levels))).values
            _row(name, *(f"{float(value):.2f}" for value in (levels.mean(), high, levels.max())))

    def _latents(self, precision: str, **how: Any) -> Tensor:
        seeds = list(range(len(self.inputs.labels)))
        options = validate_options(guidance=self.guidance, seed=seeds, **how)
        return self.samplers[precision].sample(self.inputs, options)

    def _distance(self, latents: Tensor) -> str:
        return f"{float((latents - self.exact).square().mean().sqrt() / self.exact.std()):.4f}"

    def _decoded(self, precision: str, latents: Tensor) -> Tensor:
        sampler = self.samplers[precision]
        with torch.no_grad(), torch.autocast(latents.device.type, sampler.dtype, precision != "float32"):
            return sampler.model.decode_first_stage(latents).float().clamp(-1, 1)


def _header(*titles: str) -> None:
    numbers = " | ".join(["---:"] * (len(titles) - 1))
    print(f"\n| {' | '.join(titles)} |\n| --- | {numbers} |")


def _row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
