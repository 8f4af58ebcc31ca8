"""The files that a task of the command line will write, known before its first sample."""

import argparse
from pathlib import Path

from ldm.data.faces import FaceFiles
from ldm.output_files import OutputError, check_outputs

MAX_FILES = 10_000_000  # more are a typing error, and their names would fill the memory


def check_output_folder(options: argparse.Namespace, files: FaceFiles, out: Path) -> None:
    """Check the files that the task will write; see `check_outputs`.

    Raises:
        OutputError: they cannot be written, or would lie among the inputs.
    """
    if options.data is not None:
        for folder in (options.data / "images", options.data / "labels"):
            if out.exists() and folder.exists() and out.samefile(folder):
                raise OutputError(f"--out {out} is the folder {folder} of --data; choose another folder")
    height, width = files.size
    planned = planned_files(options, files, out)
    # A PNG of a face takes one to two bytes a pixel.
    size = height * width * sum(file.suffix == ".png" for file in planned)
    check_outputs(planned, _inputs(options, files), size)


def planned_files(options: argparse.Namespace, files: FaceFiles, out: Path) -> list[Path]:
    """Return every file that the task will write if all faces can be used."""
    most = max(getattr(options, name, None) or 1 for name in ("samples", "frames"))
    if most * len(files.pairs) > MAX_FILES:
        raise OutputError(
            f"{most:,} images for each of {len(files.pairs):,} faces are too many, expected at most {MAX_FILES:,} "
            "in all; ask for fewer"
        )
    endings = _endings(options)
    planned = [out / f"{pair.name}{ending}" for pair in files.pairs for ending in endings]
    if options.task != "style":
        planned.append(overview_file(files, out))
    if options.task == "reconstruct":
        planned.append(out / "scores.json")
    return planned


def overview_file(files: FaceFiles, out: Path) -> Path:
    """Return overview.png, or another name where a face is called so."""
    names = {pair.name for pair in files.pairs}
    name = "overview"
    while name in names:
        name += "_all"
    return out / f"{name}.png"


def _endings(options: argparse.Namespace) -> list[str]:
    if options.task == "style":
        return [".style"]
    if options.task in ("random", "noise"):
        return [f"_seed{seed}.png" for seed in range(options.seed, options.seed + options.samples)]
    if options.task == "interpolate":
        frames = [f"_{frame:02d}.png" for frame in range(options.frames)]
        return [*frames, f".{options.animate}"] if options.animate else frames
    return [".png"]


def _inputs(options: argparse.Namespace, files: FaceFiles) -> list[Path]:
    named = [
        getattr(options, name, None) for name in ("style", "style_mask", "shape", "config", "checkpoint")
    ]
    named += [part.partition("=")[2] for part in getattr(options, "part", None) or []]
    folder = [path for pair in files.folder for path in (pair.image, pair.labels) if path is not None]
    return folder + [Path(path) for path in named if path is not None]
