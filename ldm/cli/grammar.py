"""The command line's grammar. Imports nothing heavy, so that --help answers at once."""

import argparse
from pathlib import Path

from ldm.arguments import path_argument
from ldm.cli.commands import add_commands
from ldm.cli.dataset_grammar import add_dataset_task, check_dataset
from ldm.cli.photo_grammar import PHOTO_TASKS, add_photo_tasks, check_photo

TASKS = {
    "reconstruct": "each face from its own label map and style; prints the PSNR",
    "swap": "each face with the style of another, in all regions or in some",
    "compose": "each face with some regions from one face and some from others",
    "random": "each face with a random style in some regions",
    "noise": "each face's shape with a style that noise decides",
    "interpolate": "frames from each face's style to another's, as pictures or as an animation",
    "reshape": "each face's style on another label map",
    "style": "each face's style codes as a file, which --style and --part take",
}
WITH_STYLE = ("swap", "interpolate")
WITH_REGIONS = ("swap", "interpolate", "random")
EDITS = ("swap", "compose", "random", "interpolate", "reshape")
NOT_FOR_LABELS = (".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
OTHER = "a name in --data, `next` for each face's neighbour there, a file of the task `style`"


def build_parser(program: str | None = None) -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(
        program,
        description="Make faces from label maps and styles: one task, on every face of a folder, or on a photo.",
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, description in TASKS.items():
        task = tasks.add_parser(
            name, help=description, description=description[0].upper() + description[1:] + "."
        )
        _add_faces(task)
        _add_task(task, name)
        _add_model(task)
        if name != "style":
            _add_sampling(task)
        _add_output(task, name)
    add_photo_tasks(tasks)
    add_dataset_task(tasks)
    add_commands(tasks)
    return parser


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with one sentence if options contradict each other."""
    if options.task in PHOTO_TASKS:
        check_photo(parser, options)
        return
    if options.task == "dataset":
        check_dataset(parser, options)
        return
    if (options.data is None) == (options.image is None):
        parser.error("give the faces: either --data FOLDER, or --image FILE with --mask FILE")
    if options.image is not None and options.mask is None:
        parser.error("--image requires --mask, its label map")
    if options.data is not None and options.mask is not None:
        parser.error("--mask belongs to --image; the faces of --data have theirs in labels/")
    if options.image is not None and options.names is not None:
        parser.error("--names chooses faces of --data; --image is a single one")
    if options.names is not None and not options.names.replace(",", "").strip():
        parser.error("--names is empty; name faces, such as 000007,900-999, or omit it for all")
    style = getattr(options, "style", "")
    if getattr(options, "style_mask", None) is not None and (style == "next" or style.endswith(".style")):
        parser.error(f"--style-mask belongs to a picture; --style {style} has its own regions")
    if (shape := getattr(options, "shape", None)) and Path(shape).suffix.lower() in NOT_FOR_LABELS:
        parser.error(
            f"--shape {shape}: a label map must be a PNG, got {Path(shape).suffix}, which does not preserve labels"
        )
    for name in ("steps", "batch_size", "frames", "samples", "overview"):
        if getattr(options, name, None) is not None and getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    for part in getattr(options, "part", []):
        if not all(part.partition("=")[::2]):
            parser.error(f"--part must be REGIONS=OTHER, such as hair,u_lip=000012; got {part}")


def _add_faces(task: argparse.ArgumentParser) -> None:
    faces = task.add_argument_group("faces")
    faces.add_argument(
        "--data", type=path_argument, metavar="FOLDER", help="folder with images/ and labels/, paired by name"
    )
    faces.add_argument(
        "--names", metavar="A,B-C", help="which faces of the folder: names, or ranges of numbers (all)"
    )
    faces.add_argument(
        "--image", type=path_argument, metavar="FILE", help="a single photo, instead of a folder"
    )
    faces.add_argument("--mask", type=path_argument, metavar="FILE", help="the photo's label map")


def _add_task(task: argparse.ArgumentParser, name: str) -> None:
    if name in WITH_STYLE:
        task.add_argument(
            "--style",
            required=True,
            metavar="OTHER",
            help=f"where the style comes from: {OTHER}, or a picture (then --style-mask is its label map)",
        )
        task.add_argument(
            "--style-mask",
            type=path_argument,
            metavar="FILE",
            help="label map of the picture that --style names",
        )
    if name in WITH_REGIONS:
        task.add_argument(
            "--regions",
            required=name == "random",
            metavar="A,B",
            help="region names, such as hair,u_lip" + ("" if name == "random" else "; all by default"),
        )
    if name == "compose":
        task.add_argument(
            "--part",
            action="append",
            required=True,
            metavar="REGIONS=OTHER",
            help=f"regions and where their style comes from: {OTHER}; may be given often",
        )
    if name == "reshape":
        task.add_argument(
            "--shape",
            required=True,
            metavar="OTHER",
            help="the label map: a name in --data, `next`, or a PNG of region numbers, edited perhaps",
        )
    if name == "interpolate":
        task.add_argument("--frames", type=int, default=5, help="pictures from one style to the other (5)")
        task.add_argument(
            "--animate", choices=("gif", "webp"), help="also write one animation per face, there and back"
        )
    if name in ("random", "noise"):
        task.add_argument(
            "--samples", type=int, default=3, help="pictures per face, each with its own seed (3)"
        )
    if name in EDITS:
        task.add_argument(
            "--lock", action="store_true", help="keep the photo's own pixels outside the regions that change"
        )
    # Not for random: what starts from an inversion is the same for every seed.
    if name in ("swap", "compose", "interpolate", "reshape", "reconstruct"):
        task.add_argument(
            "--invert",
            action="store_true",
            help="start from the noise that DDIM turns into the photo, so that what is not changed keeps its detail",
        )


def _add_model(task: argparse.ArgumentParser) -> None:
    model = task.add_argument_group("model")
    model.add_argument(
        "--checkpoint",
        type=path_argument,
        required=True,
        metavar="PATH",
        help="a run folder of main.py, or a weight file",
    )
    model.add_argument(
        "--config", type=path_argument, metavar="YAML", help="for weight files that come without a config"
    )
    model.add_argument(
        "--weights", choices=("ema", "raw"), help="averaged or last weights of the UNet (ema, if there)"
    )
    model.add_argument(
        "--precision", default="auto", help="auto, float32, bfloat16 or float16 (auto: the fastest there)"
    )
    model.add_argument(
        "--compile", action="store_true", help="compile the network's step: slow to start, for many pictures"
    )
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps (the fastest there is)")


def _add_sampling(task: argparse.ArgumentParser) -> None:
    sampling = task.add_argument_group("sampling")
    sampling.add_argument(
        "--steps", type=int, help="calls of the network, 1..1000 (10; 50 with --invert, ddim, plms or ddpm)"
    )
    sampling.add_argument(
        "--solver", help="dpmpp_2m, unipc, ddim, plms or ddpm (dpmpp_2m; with --invert ddim)"
    )
    sampling.add_argument(
        "--spacing", help="of the timesteps: uniform, quadratic or logsnr (the solver's best)"
    )
    sampling.add_argument("--eta", type=float, help="fresh noise in ddim, 0..1 (0)")
    sampling.add_argument(
        "--guidance",
        metavar="S",
        help="1 for none, more follows the style more strongly; or by region, such as hair=2,skin=1.5 (1)",
    )
    sampling.add_argument(
        "--null", help="what guidance moves away from: empty (image) or zero (as published) (empty)"
    )
    sampling.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="guide only while the noise level sigma is in between",
    )
    sampling.add_argument("--seed", type=int, default=0, help="of the noise; the same for every face (0)")


def _add_output(task: argparse.ArgumentParser, name: str) -> None:
    output = task.add_argument_group("output")
    output.add_argument(
        "--out", type=path_argument, metavar="FOLDER", help=f"where the results go (results/{name})"
    )
    output.add_argument("--batch-size", type=int, default=8, help="faces that are loaded at once (8)")
    if name != "style":
        output.add_argument("--overview", type=int, default=8, metavar="N", help="faces in overview.png (8)")
