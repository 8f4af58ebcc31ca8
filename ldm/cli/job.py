"""One task of the command line on all faces, batch by batch."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.arguments import listed_names
from ldm.atomic_files import write_text
from ldm.checkpoints.locate import FACES
from ldm.cli.others import Others
from ldm.cli.outputs import check_output_folder, overview_file
from ldm.data.animation import save_animation
from ldm.data.faces import Face, FaceFiles
from ldm.data.image_grid import draw_grid
from ldm.data.images import save_png
from ldm.metrics.pixels import psnr
from ldm.pipeline import FacePipeline, StyleCode
from ldm.pipeline.options import (
    STORED_OPTIONS,
    SamplingOptions,
    validate_inversion_options,
    validate_options,
)

Styles = list[StyleCode]


def run(options: argparse.Namespace) -> int:
    """Do the task; return 0, or 1 if some files could not be used."""
    how = _sampling_options(options)
    check_options = validate_inversion_options if getattr(options, "invert", False) else validate_options
    check_options(**how)  # mistakes before minutes of loading
    pipe = FacePipeline.from_pretrained(
        options.checkpoint or FACES,
        config=options.config,
        weights=options.weights,
        device=options.device,
        precision=options.precision,
        compile=options.compile,
    )
    if options.data is not None:
        files = FaceFiles.in_folder(options.data, pipe.label_set, pipe.size, options.names)
    else:
        files = FaceFiles.single(options.image, options.mask, pipe.label_set, pipe.size)
    out = options.out or Path("results") / options.task
    job = Job(options, how, pipe, files, out)
    check_output_folder(options, files, out)
    job.run()
    for problem in files.problems:
        tqdm.write(f"left out: {problem}", file=sys.stderr)
    print(job.summary())
    return 1 if files.problems else 0


class Job:
    """One task on all faces."""

    def __init__(
        self,
        options: argparse.Namespace,
        how: SamplingOptions,
        pipe: FacePipeline,
        files: FaceFiles,
        out: Path,
    ) -> None:
        """Take checked options; raises ValueError for regions that the model does not know."""
        self.options, self.how, self.pipe, self.files, self.out = options, how, pipe, files, out
        self.others = Others(pipe, files)
        named = getattr(options, "regions", None)
        self.regions = list(pipe.label_set.regions) if named is None else listed_names(named)
        pairs = (part.partition("=") for part in getattr(options, "part", []))
        self.parts = [(listed_names(listed), source.strip()) for listed, _, source in pairs]
        for regions, _ in self.parts:
            pipe.label_set.indices(regions)
        pipe.label_set.indices(self.regions)
        self.columns: dict[str, list[Tensor]] = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.overview = overview_file(files, out)
        self.written = self.faces = 0

    def run(self) -> None:
        """Process all faces, then write the overview and, for `reconstruct`, the scores."""
        with tqdm(total=len(self.files), unit="face", desc=self.options.task) as bar:
            for faces in self._batches():
                image = torch.stack([face.image for face in faces])
                labels = torch.stack([face.labels for face in faces])
                styles = self.pipe.read_style(image, labels)
                getattr(self, f"_{self.options.task}")(faces, image, labels, styles)
                self.faces += len(faces)
                bar.update(len(faces))
        if not self.faces:
            raise ValueError("no face could be used: " + "; ".join(self.files.problems))
        if self.columns:
            grid = {title: torch.stack(column) for title, column in self.columns.items()}
            save_png(self.overview, draw_grid(grid))
        if self.scores:
            self._write_scores()

    def summary(self) -> str:
        """Describe the results and where they are."""
        if not self.columns:
            return f"{self.written} styles in {self.out}"
        shown = min(self.faces, self.options.overview)
        faces = "1 face" if shown == 1 else f"{shown} faces"
        return f"{self.written} images in {self.out}; {self.overview} shows {faces}"

    def _batches(self) -> Iterator[list[Face]]:
        batch: list[Face] = []
        for face in self.files:
            batch.append(face)
            if len(batch) == self.options.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    # --- tasks: each adds columns to the overview and saves its results ---

    def _reconstruct(self, faces: list[Face], image: Tensor, labels: Tensor, styles: Styles) -> None:
        ceiling = self.pipe.autoencode(image)
        result = (
            self._edited(image, labels, styles, lock=False)
            if self._inverts
            else self._sampled(labels, styles)
        )
        for face, first, whole in zip(faces, psnr(ceiling, image), psnr(result, image), strict=True):
            self.scores[face.name] = {"first_stage": first, "reconstruct": whole}
        self._add_input(image, labels)
        self._add_column("first stage alone", ceiling)
        self._save(faces, "reconstruction", result)

    def _swap(self, faces: list[Face], image: Tensor, labels: Tensor, styles: Styles) -> None:
        others, theirs = self.others.styles(self.options.style, faces, "--style", self.options.style_mask)
        mixed = [own.swap(other, self.regions) for own, other in zip(styles, theirs, strict=True)]
        self._add_input(image, labels)
        if not (self.options.lock or self._inverts):
            self._add_column("own style", self._sampled(labels, styles))
        if others is not None:
            self._add_column("style of", others)
        self._save(faces, "swapped", self._edit(image, labels, mixed))

    def _compose(self, faces: list[Face], image: Tensor, labels: Tensor, styles: Styles) -> None:
        self._add_input(image, labels)
        changed: list[str] = []
        for regions, source in self.parts:
            others, theirs = self.others.styles(source, faces, "--part")
            styles = [own.swap(other, regions) for own, other in zip(styles, theirs, strict=True)]
            if others is not None:
                # If two parts have a region in common, the later one takes precedence; the overview has both.
                self._add_column(f"{','.join(regions)} of {source}", others)
            changed += regions
        self.regions = changed
        self._save(faces, "composed", self._edit(image, labels, styles))

    def _random(self, faces: list[Face], image: Tensor, labels: Tensor, styles: Styles) -> None:
        empty = self.pipe.null_style(labels)
        mixed = [own.swap(other, self.regions) for own, other in zip(styles, empty, strict=True)]
        self._variants(faces, image, labels, partial(self._edit, image, labels, mixed))

    def _noise(self, faces: list[Face], image: Tensor, labels: Tensor, styles: Styles) -> None:
        self._variants(faces, image, labels, partial(self._sampled, labels, self.pipe.null_style(labels)))

    def _variants(
        self, faces: list[Face], image: Tensor, labels: Tensor, make: Callable[..., Tensor]
    ) -> None:
        self._add_input(image, labels)
        for seed in range(self.options.seed, self.options.seed + self.options.samples):
            self._save(faces, f"seed {seed}", make(seed=seed), f"_seed{seed}")

    def _interpolate(self, faces: list[Face], image: Tensor, labels: Tensor, styles: Styles) -> None:
        others, theirs = self.others.styles(self.options.style, faces, "--style", self.options.style_mask)
        self._add_input(image, labels)
        last = max(self.options.frames - 1, 1)
        digits = max(0, math.ceil(math.log10(last / 100)))  # enough decimals for distinct column titles
        frames: list[Tensor] = []
        for frame in range(self.options.frames):
            mixed = [
                own.lerp(other, frame / last, self.regions) for own, other in zip(styles, theirs, strict=True)
            ]
            frames.append(self._edit(image, labels, mixed).cpu())
            self._save(faces, f"{100 * frame / last:.{digits}f} %", frames[-1], f"_{frame:02d}")
        if others is not None:
            self._add_column("style of", others)
        if self.options.animate:
            for face, animation in zip(faces, torch.stack(frames, 1), strict=True):
                save_animation(
                    self.out / f"{face.name}.{self.options.animate}", [*animation, *animation.flip(0)[1:-1]]
                )
                self.written += 1

    def _reshape(self, faces: list[Face], image: Tensor, labels: Tensor, styles: Styles) -> None:
        shapes = self.others.shapes(self.options.shape, faces)
        self.regions = []
        self._add_input(image, labels)
        self._add_column("new mask", self._colored(shapes))
        if self.options.lock or self._inverts:
            result = self._edited(image, labels, styles, lock=self.options.lock, new_labels=shapes)
        else:
            result = self._sampled(shapes, styles)
        self._save(faces, "reshaped", result)

    def _style(self, faces: list[Face], image: Tensor, labels: Tensor, styles: Styles) -> None:
        for face, style in zip(faces, styles, strict=True):
            style.save(self.out / f"{face.name}.style")
            self.written += 1

    # --- sampling, overview, files ---

    def _sampled(self, labels: Tensor, styles: Styles, **how: Any) -> Tensor:
        return self.pipe(labels, styles, **{**self.how, **how})

    @property
    def _inverts(self) -> bool:
        return getattr(self.options, "invert", False)

    def _edited(self, image: Tensor, labels: Tensor, styles: Styles, **how: Any) -> Tensor:
        how = {"regions": self.regions, "invert": self._inverts, **self.how, **how}
        return self.pipe.edit(image, labels, styles, **how)

    def _edit(self, image: Tensor, labels: Tensor, styles: Styles, **how: Any) -> Tensor:
        """Edit the images with --lock or --invert, or else sample new ones."""
        if self.options.lock or self._inverts:
            return self._edited(image, labels, styles, lock=self.options.lock, **how)
        return self._sampled(labels, styles, **how)

    def _add_input(self, image: Tensor, labels: Tensor) -> None:
        self._add_column("input", image)
        self._add_column("mask", self._colored(labels))

    def _colored(self, labels: Tensor) -> Tensor:
        colored = torch.stack([torch.from_numpy(self.pipe.label_set.colorize(one)) for one in labels])
        return colored.permute(0, 3, 1, 2) / 127.5 - 1

    def _add_column(self, title: str, images: Tensor) -> None:
        """Add a column of the overview."""
        column = self.columns.setdefault(title, [])
        column.extend(images.cpu()[: self.options.overview - len(column)])

    def _save(self, faces: list[Face], title: str, images: Tensor, suffix: str = "") -> None:
        """Write one PNG per face, with its settings in the metadata, and add a column to the overview."""
        for face, image in zip(faces, images.cpu(), strict=True):
            settings = {key: str(value) for key, value in vars(self.options).items() if value is not None}
            recipe = json.dumps({**settings, "face": face.name, "column": title})
            save_png(self.out / f"{face.name}{suffix}.png", image, {"sca-dm": recipe})
            self.written += 1
        self._add_column(title, images)

    def _write_scores(self) -> None:
        means = {
            column: sum(score[column] for score in self.scores.values()) / len(self.scores)
            for column in ("first_stage", "reconstruct")
        }
        text = json.dumps({"psnr_db": means, "faces": self.scores}, indent=1)
        write_text(self.out / "scores.json", text)
        print(
            f"PSNR, mean of {len(self.scores)} faces: first stage alone {means['first_stage']:.2f} dB, "
            f"reconstruct {means['reconstruct']:.2f} dB"
        )


def _sampling_options(options: argparse.Namespace) -> SamplingOptions:
    given = {name: getattr(options, name, None) for name in STORED_OPTIONS}
    how: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if "guidance" in how:
        how["guidance"] = _guidance(options.guidance)
    return how  # type: ignore[return-value]


def _guidance(text: str) -> float | dict[str, float]:
    """Read "2" or "hair=2,skin=1.5"."""
    try:
        if "=" not in text:
            return float(text)
        parts = [part.partition("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, _, value in parts}
    except ValueError as error:
        raise ValueError(
            f"--guidance must be a number, or by region such as hair=2,skin=1.5, got {text}"
        ) from error
