"""Argument parser of `sca-dm`. Imports nothing heavy, so that --help is fast."""

import argparse
from pathlib import Path

from ldm.arguments import path_argument
from ldm.cli.commands import add_commands
from ldm.cli.dataset_grammar import add_dataset_task, check_dataset
from ldm.cli.model_arguments import add_model_arguments
from ldm.cli.photo_grammar import PHOTO_TASKS, add_photo_tasks, check_photo

TASKS = {
    "reconstruct": "each face from its own label map and style; prints the PSNR",
    "swap": "each face with the style of another, in all regions or in some",
    "compose": "each face with some regions from one face and some from others",
    "random": "each face with a random style in some regions",
    "noise": "each face with a random style in all regions",
    "interpolate": "frames from each face's style to another's, as images or as an animation",
    "reshape": "each face's style on another label map",
    "style": "each face's style codes as a file, which --style and --part accept",
}
WITH_STYLE = ("swap", "interpolate")
WITH_REGIONS = ("swap", "interpolate", "random")
EDITS = ("swap", "compose", "random", "interpolate", "reshape")
NOT_FOR_LABELS = (".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
OTHER = "a name in --data, `next` (for each face, the next one in --data), a file written by the task `style`"


def build_parser(program: str | None = None) -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(
        program,
        description="Generate and edit faces from label maps and region styles: one task, on a folder or on one photo.",
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
        parser.error("no input; give either --data FOLDER, or --image FILE with --mask FILE")
    if options.image is not None and options.mask is None:
        parser.error("--image requires --mask, its label map")
    if options.data is not None and options.mask is not None:
        parser.error("--mask requires --image; label maps of --data are read from its labels/")
    if options.image is not None and options.names is not None:
        parser.error("--names selects faces of --data and cannot be combined with --image")
    if options.names is not None and not options.names.replace(",", "").strip():
        parser.error("--names is empty; name faces, such as 000007,900-999, or omit it for all")
    style = getattr(options, "style", "")
    if getattr(options, "style_mask", None) is not None and (style == "next" or style.endswith(".style")):
        parser.error(
            f"--style-mask requires an image as --style, got --style {style}, which has its own regions"
        )
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
        "--names",
        metavar="A,B-C",
        help="faces of the folder to use: names, or ranges of numbers (default: all)",
    )
    faces.add_argument(
        "--image", type=path_argument, metavar="FILE", help="a single image, instead of --data"
    )
    faces.add_argument("--mask", type=path_argument, metavar="FILE", help="label map of --image")


def _add_task(task: argparse.ArgumentParser, name: str) -> None:
    if name in WITH_STYLE:
        task.add_argument(
            "--style",
            required=True,
            metavar="OTHER",
            help=f"source of the style: {OTHER}, or an image with --style-mask",
        )
        task.add_argument(
            "--style-mask",
            type=path_argument,
            metavar="FILE",
            help="label map of the image given as --style",
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
            help=f"regions and the source of their style: {OTHER}; can be repeated",
        )
    if name == "reshape":
        task.add_argument(
            "--shape",
            required=True,
            metavar="OTHER",
            help="target label map: a name in --data, `next`, or a PNG of region indices, such as an edited label map",
        )
    if name == "interpolate":
        task.add_argument("--frames", type=int, default=5, help="frames, including both ends (default: 5)")
        task.add_argument(
            "--animate",
            choices=("gif", "webp"),
            help="also write an animation per face, forwards and backwards",
        )
    if name in ("random", "noise"):
        task.add_argument(
            "--samples", type=int, default=3, help="images per face, each with its own seed (default: 3)"
        )
    if name in EDITS:
        task.add_argument(
            "--lock", action="store_true", help="keep the input pixels outside the edited regions"
        )
    # Not for random: sampling from an inversion gives the same image for every seed.
    if name in ("swap", "compose", "interpolate", "reshape", "reconstruct"):
        task.add_argument(
            "--invert",
            action="store_true",
            help="start from the DDIM inversion of the input, which preserves detail in unedited regions",
        )


def _add_model(task: argparse.ArgumentParser) -> None:
    model = task.add_argument_group("model")
    model.add_argument(
        "--checkpoint",
        type=path_argument,
        metavar="PATH",
        help="run folder of main.py, folder of weights, or weight file (default: checkpoints/faces/diffusion)",
    )
    add_model_arguments(model)
    model.add_argument(
        "--compile",
        action="store_true",
        help="compile the UNet with torch.compile; takes minutes at the start, worthwhile for many images",
    )
    model.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest available)")


def _add_sampling(task: argparse.ArgumentParser) -> None:
    sampling = task.add_argument_group("sampling")
    sampling.add_argument(
        "--steps",
        type=int,
        help="solver steps, 1 to 1000 (default: 10; 50 with --invert, ddim, plms or ddpm)",
    )
    sampling.add_argument(
        "--solver", help="dpmpp_2m, unipc, ddim, plms or ddpm (default: dpmpp_2m; ddim with --invert)"
    )
    sampling.add_argument(
        "--spacing", help="timestep spacing: uniform, quadratic or logsnr (default: the best of the solver)"
    )
    sampling.add_argument(
        "--order", type=int, help="order of unipc, 1 to 3 (default: 2 up to 12 steps, 3 for more)"
    )
    sampling.add_argument("--eta", type=float, help="stochasticity of DDIM, 0 to 1 (default: 0)")
    sampling.add_argument(
        "--guidance",
        metavar="S",
        help="scale of classifier-free guidance, one number or by region, such as hair=2,skin=1.5 (default: 1, none)",
    )
    sampling.add_argument(
        "--null",
        help="null condition of guidance: empty (style of an all-zero image) or zero (published) (default: empty)",
    )
    sampling.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="apply guidance only at noise levels sigma in this range",
    )
    sampling.add_argument(
        "--seed", type=int, default=0, help="seed of the noise, the same for every face (default: 0)"
    )


def _add_output(task: argparse.ArgumentParser, name: str) -> None:
    output = task.add_argument_group("output")
    output.add_argument(
        "--out", type=path_argument, metavar="FOLDER", help=f"output folder (default: results/{name})"
    )
    output.add_argument("--batch-size", type=int, default=8, help="faces per batch (default: 8)")
    if name != "style":
        output.add_argument(
            "--overview", type=int, default=8, metavar="N", help="faces in overview.png (default: 8)"
        )
