"""The arguments of the tasks `photo` and `faces`. Imports nothing heavy."""

import argparse

from ldm.arguments import path_argument
from ldm.cli.model_arguments import add_model_arguments

PHOTO_TASKS = {
    "photo": "edit regions of a face in photos; each result is the whole photo",
    "faces": "list the faces in a photo as JSON, and number them in an image",
}


def add_photo_tasks(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the tasks to the command line."""
    for name, description in PHOTO_TASKS.items():
        task = tasks.add_parser(
            name, help=description, description=description[0].upper() + description[1:] + "."
        )
        if name == "photo":
            task.add_argument(
                "photo",
                nargs="+",
                metavar="PHOTO",
                help="photos (JPEG, PNG, WebP, TIFF, ...), folders, or patterns",
            )
        else:
            task.add_argument(
                "photo", type=path_argument, metavar="PHOTO", help="the photo: JPEG, PNG, WebP, TIFF, ..."
            )
        task.add_argument(
            "--parser",
            type=path_argument,
            metavar="PATH",
            help="face parser: a run folder of main.py, or a folder in transformers' format "
            "(default: checkpoints/faces/parser)",
        )
        task.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest available)")
        if name == "photo":
            _add_edit(task)
            _add_masks(task)
        else:
            task.add_argument(
                "-o", "--out", type=path_argument, metavar="FILE", help="PNG with numbered faces"
            )


def _add_edit(task: argparse.ArgumentParser) -> None:
    task.add_argument(
        "-o",
        "--out",
        type=path_argument,
        required=True,
        metavar="PATH",
        help="the edited photo, or a folder; edited photos that exist there already are skipped",
    )
    task.add_argument(
        "--checkpoint",
        type=path_argument,
        metavar="PATH",
        help="face model (default: checkpoints/faces/diffusion)",
    )
    add_model_arguments(task)
    task.add_argument(
        "--face",
        type=int,
        default=0,
        help="index of the face, as listed by `faces` (default: 0, the largest)",
    )
    task.add_argument(
        "--color",
        action="append",
        metavar="REGIONS=COLOR",
        help="such as hair=#7a3b2e, hair=auburn or u_lip,l_lip=crimson; can be repeated",
    )
    task.add_argument(
        "--style", metavar="STYLE", help="another photo, a file of the task `style`, or `random` (see --seed)"
    )
    task.add_argument("--regions", metavar="A,B", help="with --style: region names, such as hair,u_lip")
    task.add_argument(
        "--strength", type=float, default=1.0, help="from 0, unchanged, to 1, the full edit (default: 1)"
    )
    task.add_argument(
        "--detail",
        choices=("auto", "keep", "replace"),
        default="auto",
        help="keep the photo's strands and grain, replace them with sampled pixels, or replace only small "
        "faces that the model reconstructs well; colors are kept with auto (default: auto)",
    )
    task.add_argument("--seed", type=int, help="seed of the noise, where the model samples (default: 0)")
    task.add_argument("--steps", type=int, help="solver steps, 1 to 1000 (default: 10)")
    task.add_argument("--gps", action="store_true", help="keep the GPS position in the metadata")


def _add_masks(task: argparse.ArgumentParser) -> None:
    task.add_argument(
        "--mask-out",
        type=path_argument,
        metavar="PATH",
        help="also write the label map, a palette PNG of the photo's size; a folder for several photos",
    )
    task.add_argument(
        "--mask-in",
        type=path_argument,
        metavar="PATH",
        help="use this label map, a PNG of the photo's size such as an edited --mask-out; a folder with NAME.png for "
        "several photos",
    )


def check_photo(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with one sentence if options contradict each other."""
    if options.task != "photo":
        return
    if (options.style is None) == (options.color is None):
        parser.error("give either --color REGIONS=COLOR or --style STYLE with --regions")
    if (options.style is None) == (options.regions is not None):
        parser.error("--regions belongs to --style, and --style needs it; --color names its regions itself")
    if not all(options.photo):
        parser.error("PHOTO is empty; give a file, a folder or a pattern")
    if not 0 <= options.strength <= 1:
        parser.error(f"--strength must be in [0, 1], got {options.strength}")
    if options.face < 0:
        parser.error(f"--face must be at least 0, got {options.face}")
