"""The arguments of the task `dataset`. Imports nothing heavy."""

import argparse

from ldm.arguments import path_argument

DESCRIPTION = "build a training set from photos: aligned faces with label maps"


def add_dataset_task(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the task to the command line."""
    task = tasks.add_parser(
        "dataset", help=DESCRIPTION, description=DESCRIPTION[0].upper() + DESCRIPTION[1:] + "."
    )
    task.add_argument("photo", nargs="+", metavar="PHOTO", help="photos, folders of photos, or patterns")
    task.add_argument(
        "out",
        type=path_argument,
        metavar="FOLDER",
        help="output folder: images/, labels/, data.yaml for main.py, dropped.txt and contact sheets",
    )
    task.add_argument(
        "--size", type=int, default=512, help="side of the aligned images in pixels (default: 512)"
    )
    task.add_argument(
        "--min-size",
        "--smallest",  # its former name
        type=int,
        default=128,
        metavar="PIXELS",
        help="minimum side of a face crop in the photo, about twice the face; drop smaller faces (default: 128)",
    )
    task.add_argument(
        "--parser",
        type=path_argument,
        metavar="PATH",
        help="face parser: a run folder of main.py, or a folder in transformers' format "
        "(default: checkpoints/faces/parser)",
    )
    task.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest available)")


def check_dataset(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with one sentence if an option is out of range."""
    if not all(options.photo):
        parser.error("PHOTO is empty; give a file, a folder or a pattern")
    for name, least in (("size", 16), ("min_size", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(options, name)}")
