"""The grammar of the tasks `photo` and `faces`. Imports nothing heavy."""

import argparse
from pathlib import Path

PHOTO_TASKS = {
    "photo": "change regions of a face in a photo; the result is the whole photo",
    "faces": "the faces in a photo, as JSON and numbered in an image",
}


def add_photo_tasks(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the tasks to the command line."""
    for name, description in PHOTO_TASKS.items():
        task = tasks.add_parser(
            name, help=description, description=description[0].upper() + description[1:] + "."
        )
        task.add_argument("photo", type=Path, metavar="PHOTO", help="the file: JPEG, PNG, WebP, TIFF, ...")
        task.add_argument(
            "--parser",
            type=Path,
            required=True,
            metavar="PATH",
            help="the face parser: a run folder of main.py, or a folder in transformers' format",
        )
        task.add_argument("--device", help="cpu, cuda, cuda:1, mps (the fastest there is)")
        if name == "photo":
            _add_edit(task)
        else:
            task.add_argument("-o", "--out", type=Path, metavar="FILE", help="numbered image to write, a PNG")


def _add_edit(task: argparse.ArgumentParser) -> None:
    task.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the edited photo")
    task.add_argument(
        "--checkpoint", type=Path, metavar="PATH", help="the face model (checkpoints/demo, of drawn faces)"
    )
    task.add_argument(
        "--face", type=int, default=0, help="which face, as `faces` numbers them (0: the largest)"
    )
    look = task.add_mutually_exclusive_group(required=True)
    look.add_argument(
        "--color", metavar="REGIONS=COLOR", help="such as hair=#7a3b2e, hair=auburn or u_lip,l_lip=crimson"
    )
    look.add_argument(
        "--style", metavar="OTHER", help="another photo, a file of the task `style`, or `random` (--seed)"
    )
    task.add_argument("--regions", metavar="A,B", help="with --style: region names, such as hair,u_lip")
    task.add_argument(
        "--strength", type=float, default=1.0, help="0 keeps the photo, 1 is the whole edit (1)"
    )
    task.add_argument(
        "--detail",
        choices=("keep", "replace"),
        default="keep",
        help="keep the photo's strands and grain and change colours, or replace them with sampled pixels (keep)",
    )
    task.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    task.add_argument("--steps", type=int, default=20, help="calls of the network, 1..1000 (20)")
    task.add_argument("--gps", action="store_true", help="keep where the photo was taken in its metadata")


def check_photo(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with one sentence if options contradict each other."""
    if options.task == "photo" and (options.style is None) == (options.regions is not None):
        parser.error("--regions belongs to --style, and --style needs it; --color names its regions itself")
