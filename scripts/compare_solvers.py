"""Compare solvers, steps, guidance and precision by the distance of their latents from 1,000 steps of DDIM.

The distance is the root mean square difference, relative to the standard deviation of the latents. Prints the tables
of docs/sampling.md for any weights; bfloat16 only on devices that have it natively:

  python scripts/compare_solvers.py checkpoints/demo --data assets/faces
"""

from __future__ import annotations

import argparse
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
from ldm.pipeline.options import validate_options

REFERENCE = 1000  # steps
SOLVERS = {"ddim": (20, 50, 100), "dpmpp_2m": (5, 8, 10, 15, 20), "unipc": (5, 8, 10, 15, 20)}
INTERVALS: tuple[tuple[float, float] | None, ...] = (None, (0.2, 5.0), (0.5, 5.0), (0.2, 20.0))


class LatentSampler(ImageSampler):
    """Samples the latents of images."""

    def _decoded(self, z: Tensor) -> Tensor:
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
    parser.add_argument("--device", default=None, help="cpu, cuda or mps (default: the fastest available)")
    options = parser.parse_args(arguments)
    pipe = FacePipeline.from_pretrained(options.checkpoint, device=options.device, precision="float32")
    inputs = _inputs(pipe, options.data, options.count)
    for guidance in options.guidance:
        _compare(pipe, inputs, guidance)
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


def _compare(pipe: FacePipeline, inputs: SamplingInputs, guidance: float) -> None:
    """Print the table of one guidance scale."""
    samplers = {"float32": LatentSampler(pipe.model, pipe.label_set, torch.float32)}
    if native_bfloat16(pipe.device):
        samplers["bfloat16"] = LatentSampler(pipe.model, pipe.label_set, torch.bfloat16)

    def latents(sampler: LatentSampler, **how: Any) -> Tensor:
        return sampler.sample(
            inputs, validate_options(guidance=guidance, seed=list(range(len(inputs.labels))), **how)
        )

    exact = latents(samplers["float32"], solver="ddim", steps=REFERENCE)

    def distance(found: Tensor) -> str:
        return f"{float((found - exact).square().mean().sqrt() / exact.std()):.4f}"

    header = f"| solver | steps | {' | '.join(samplers)} |\n| --- | ---: |{' ---: |' * len(samplers)}"
    print(f"\nguidance {guidance:g}\n\n{header}")
    for solver, all_steps in SOLVERS.items():
        for steps in all_steps:
            row = [distance(latents(one, solver=solver, steps=steps)) for one in samplers.values()]
            print(f"| {solver} | {steps} | {' | '.join(row)} |", flush=True)
    if guidance != 1:
        print("\n| guidance only for sigma in | distance from guidance at all steps |\n| --- | ---: |")
        for interval in INTERVALS:
            found = latents(samplers["float32"], solver="dpmpp_2m", steps=20, guidance_interval=interval)
            print(f"| {'all' if interval is None else interval} | {distance(found)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
