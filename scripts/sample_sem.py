"""Make faces from label maps and styles, from the shell: reconstruct, swap, random, noise, interpolate."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ldm.data.faces import Face, FaceFiles
    from ldm.pipeline import FacePipeline

TASKS = {
    "reconstruct": "each face from its own label map and style; prints the PSNR",
    "swap": "each face with the style of another, in all regions or in some",
    "random": "each face with a random style in some regions",
    "noise": "each face's shape with a style that noise decides",
    "interpolate": "frames from each face's style to another's",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, description in TASKS.items():
        task = tasks.add_parser(
            name, help=description, description=description[0].upper() + description[1:] + "."
        )
        _add_faces(task)
        _add_sampling(task)
        if name in ("swap", "interpolate"):
            task.add_argument(
                "--style",
                required=True,
                metavar="OTHER",
                help="where the style comes from: a name in --data, `next` for each face's neighbour there, "
                "or a picture (then --style-mask is its label map)",
            )
            task.add_argument(
                "--style-mask", type=Path, metavar="FILE", help="label map of the picture that --style names"
            )
        if name in ("swap", "interpolate", "random"):
            task.add_argument(
                "--regions",
                required=name == "random",
                metavar="A,B",
                help="region names, such as hair,u_lip" + ("" if name == "random" else "; all by default"),
            )
        if name == "interpolate":
            task.add_argument(
                "--frames", type=int, default=5, help="pictures from one style to the other (5)"
            )
        if name in ("random", "noise"):
            task.add_argument(
                "--samples", type=int, default=3, help="pictures per face, each with its own seed (3)"
            )
    return parser


def _add_faces(task: argparse.ArgumentParser) -> None:
    faces = task.add_argument_group("faces")
    faces.add_argument(
        "--data", type=Path, metavar="FOLDER", help="folder with images/ and labels/, paired by name"
    )
    faces.add_argument(
        "--names", metavar="A,B-C", help="which faces of the folder: names, or ranges of numbers (all)"
    )
    faces.add_argument("--image", type=Path, metavar="FILE", help="a single photo, instead of a folder")
    faces.add_argument("--mask", type=Path, metavar="FILE", help="the photo's label map")


def _add_sampling(task: argparse.ArgumentParser) -> None:
    model = task.add_argument_group("model")
    model.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="a run folder of main.py, or a weight file",
    )
    model.add_argument(
        "--config", type=Path, metavar="YAML", help="for weight files that come without a config"
    )
    model.add_argument(
        "--weights", choices=("ema", "raw"), help="averaged or last weights of the UNet (ema, if there)"
    )
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    sampling = task.add_argument_group("sampling")
    sampling.add_argument("--steps", type=int, default=50, help="solver steps, 1..1000 (50)")
    sampling.add_argument("--solver", default="ddim", help="ddim, ddpm or plms (ddim)")
    sampling.add_argument("--eta", type=float, default=0.0, help="fresh noise in ddim, 0..1 (0)")
    sampling.add_argument(
        "--guidance", type=float, default=1.0, help="pull away from the random style (1: none)"
    )
    sampling.add_argument("--seed", type=int, default=0, help="of the noise; the same for every face (0)")
    sampling.add_argument("--batch-size", type=int, default=8, help="pictures that are made at once (8)")
    output = task.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="FOLDER", help="where PNGs go (results/TASK)")
    output.add_argument("--overview", type=int, default=8, metavar="N", help="faces in overview.png (8)")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, 1 if some files could not be used, 2 for a mistake in the command."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if (options.data is None) == (options.image is None):
        parser.error("give the faces: either --data FOLDER, or --image FILE with --mask FILE")
    if options.image is not None and options.mask is None:
        parser.error("--image wants --mask, its label map")
    for name in ("steps", "batch_size", "frames", "samples", "overview"):
        if getattr(options, name, 1) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}; wanted 1 or more")
    try:
        return _run(options)
    except (ValueError, OSError, RuntimeError) as error:
        if "out of memory" in str(error).lower():
            error = ValueError(
                f"too little memory for {options.batch_size} pictures at once; lower --batch-size"
            )
        elif isinstance(error, RuntimeError):
            raise
        print(f"sample_sem.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    # Before torch is imported, for main.py's reason.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ldm.data.faces import FaceFiles  # seconds of imports, which --help does not need
    from ldm.pipeline import FacePipeline

    pipe = FacePipeline.from_pretrained(
        options.checkpoint, config=options.config, weights=options.weights, device=options.device
    )
    if options.data is not None:
        files = FaceFiles.in_folder(options.data, pipe.label_set, pipe.size, options.names)
    else:
        files = FaceFiles.single(options.image, options.mask, pipe.label_set, pipe.size)
    out = options.out or Path("results") / options.task
    job = _Job(options, pipe, files, out)
    job.run()
    for problem in files.problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(f"{job.written} pictures in {out}; {out / 'overview.png'} shows {job.shown} faces")
    return 1 if files.problems else 0


class _Job:
    """One task on all faces, batch by batch."""

    def __init__(self, options: argparse.Namespace, pipe: FacePipeline, files: FaceFiles, out: Path) -> None:
        self.options, self.pipe, self.files, self.out = options, pipe, files, out
        regions = getattr(options, "regions", None)
        self.regions = None if regions is None else pipe.indices(regions.split(","))
        self.columns: dict[str, list[Tensor]] = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.written = self.shown = 0

    def run(self) -> None:
        """Make every picture, then the overview and, for `reconstruct`, the scores."""
        from tqdm import tqdm

        from ldm.data.image_grid import draw_grid
        from ldm.data.images import save_png

        with tqdm(total=len(self.files), unit="face", desc=self.options.task) as bar:
            for faces in self._batches():
                for column, images in self._columns(faces).items():
                    self._keep(faces, column, images)
                self.shown += len(faces)
                bar.update(len(faces))
        if not self.shown:
            raise ValueError("no face could be used: " + "; ".join(self.files.problems))
        import torch

        self.shown = min(self.shown, self.options.overview)
        save_png(
            self.out / "overview.png",
            draw_grid({title: torch.stack(column) for title, column in self.columns.items()}),
        )
        if self.scores:
            self._write_scores()

    def _batches(self) -> Iterator[list[Face]]:
        batch: list[Face] = []
        for face in self.files:
            batch.append(face)
            if len(batch) == self.options.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _keep(self, faces: list[Face], column: str, images: Tensor) -> None:
        """Write a result's pictures and remember the first rows for the overview."""
        from ldm.data.images import save_png

        kept = self.columns.setdefault(column, [])
        for face, image in zip(faces, images.cpu(), strict=True):
            if column in self._results:
                suffix = "" if self._results[column] is None else f"_{self._results[column]}"
                save_png(self.out / f"{face.name}{suffix}.png", image, self._recipe(face, column))
                self.written += 1
            if len(kept) < self.options.overview:
                kept.append(image)

    def _recipe(self, face: Face, column: str) -> dict[str, str]:
        settings = {key: str(value) for key, value in vars(self.options).items() if value is not None}
        return {"sca-dm": json.dumps({**settings, "face": face.name, "column": column})}

    def _columns(self, faces: list[Face]) -> dict[str, Tensor]:
        """Return the overview's columns for a batch; those named in `_results` are also written one by one."""
        import torch

        image = torch.stack([face.image for face in faces])
        labels = torch.stack([face.labels for face in faces])
        style = self.pipe.read_style(image, labels)
        mask = torch.stack([torch.from_numpy(self.pipe.label_set.colourise(m)) for m in labels])
        columns = {"input": image, "mask": mask.permute(0, 3, 1, 2) / 127.5 - 1}
        self._results: dict[str, str | None] = {}
        make = getattr(self, f"_{self.options.task}")
        columns.update(make(faces, image, labels, style))
        return columns

    def _sample(self, labels: Tensor, style: Tensor, seed: int) -> Tensor:
        options = self.options
        return self.pipe(
            labels,
            style,
            seeds=[seed] * len(labels),
            steps=options.steps,
            solver=options.solver,
            eta=options.eta,
            guidance=options.guidance,
        )

    def _reconstruct(
        self, faces: list[Face], image: Tensor, labels: Tensor, style: Tensor
    ) -> dict[str, Tensor]:
        from ldm.pipeline import psnr

        ceiling = self.pipe.reconstruct(image)
        result = self._sample(labels, style, self.options.seed)
        for face, first, whole in zip(faces, psnr(ceiling, image), psnr(result, image), strict=True):
            self.scores[face.name] = {"first_stage": first, "reconstruct": whole}
        self._results["reconstruction"] = None
        return {"first stage alone": ceiling, "reconstruction": result}

    def _swap(self, faces: list[Face], image: Tensor, labels: Tensor, style: Tensor) -> dict[str, Tensor]:
        from ldm.pipeline import swap

        others, other_style = self._others(faces)
        self._results["swapped"] = None
        mixed = swap(style, other_style, self.regions)
        return {
            "own style": self._sample(labels, style, self.options.seed),
            "style of": others,
            "swapped": self._sample(labels, mixed, self.options.seed),
        }

    def _random(self, faces: list[Face], image: Tensor, labels: Tensor, style: Tensor) -> dict[str, Tensor]:
        from ldm.pipeline import swap

        return self._variants(labels, swap(style, self.pipe.random_style(labels), self.regions))

    def _noise(self, faces: list[Face], image: Tensor, labels: Tensor, style: Tensor) -> dict[str, Tensor]:
        return self._variants(labels, self.pipe.random_style(labels))

    def _variants(self, labels: Tensor, style: Tensor) -> dict[str, Tensor]:
        columns = {}
        for seed in range(self.options.seed, self.options.seed + self.options.samples):
            self._results[f"seed {seed}"] = f"seed{seed}"
            columns[f"seed {seed}"] = self._sample(labels, style, seed)
        return columns

    def _interpolate(
        self, faces: list[Face], image: Tensor, labels: Tensor, style: Tensor
    ) -> dict[str, Tensor]:
        from ldm.pipeline import interpolate

        others, other_style = self._others(faces)
        columns, last = {}, max(self.options.frames - 1, 1)
        for frame in range(self.options.frames):
            title = f"{100 * frame / last:.0f} %"
            self._results[title] = f"{frame:02d}"
            mixed = interpolate(style, other_style, frame / last, self.regions)
            columns[title] = self._sample(labels, mixed, self.options.seed)
        return columns | {"style of": others}

    def _others(self, faces: list[Face]) -> tuple[Tensor, Tensor]:
        """Return the pictures that --style means for these faces, and their styles."""
        import torch

        others = [self.files.other(self.options.style, self.options.style_mask, face.name) for face in faces]
        image = torch.stack([other.image for other in others])
        return image, self.pipe.read_style(image, torch.stack([other.labels for other in others]))

    def _write_scores(self) -> None:
        from ldm.data.images import write_atomically

        means = {
            column: sum(score[column] for score in self.scores.values()) / len(self.scores)
            for column in ("first_stage", "reconstruct")
        }
        text = json.dumps({"psnr_db": means, "faces": self.scores}, indent=1)
        write_atomically(self.out / "scores.json", lambda file: file.write(text.encode()))
        print(
            f"PSNR, mean of {len(self.scores)} faces: first stage alone {means['first_stage']:.2f} dB, "
            f"reconstruct {means['reconstruct']:.2f} dB"
        )


if __name__ == "__main__":
    sys.exit(main())
