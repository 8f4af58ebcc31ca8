"""Evaluate a model: generate faces by a protocol, compute metrics, write a report with image grids.

After an interruption, the same command continues. Several GPUs: torchrun --nproc-per-node N
scripts/evaluate.py ...
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from ldm.arguments import path_argument

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("reconstruct", "swap", "random", "noise")


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_protocol(parser)
    _add_metric_networks(parser)
    _add_model(parser)
    return parser


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="folder with images/ and labels/, or `synthetic` for generated faces (default: that of the protocol)",
    )
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="name of a protocol in configs/evaluation, or path of a YAML (default: synthetic for --data synthetic, "
        "else folder)",
    )
    parser.add_argument(
        "--tasks", default=",".join(TASKS), metavar="A,B", help=f"some of {', '.join(TASKS)} (default: all)"
    )
    parser.add_argument("--out", type=path_argument, required=True, metavar="FOLDER", help="output folder")
    for name, text in (
        ("first", "number of the first face"),
        ("last", "number of the last face"),
        ("samples", "images per label map, for diversity"),
    ):
        parser.add_argument(
            f"--{name}", type=int, metavar="N", help=f"{text} (default: that of the protocol)"
        )
    parser.add_argument(
        "--sampling",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="sampling option that replaces the protocol's, such as guidance=1.5 or steps=50; may be repeated",
    )


def _add_metric_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metric-network",
        "--judge",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="metric network: lpips, inception, dinov2, clip, efficientnet or parser; a file, a folder, owner/name on "
        "the Hugging Face hub, or `none` to leave it out; may be repeated (default: those found in --metric-networks, "
        "and the bundled face parser)",
    )
    parser.add_argument(
        "--metric-networks",
        "--judges",
        type=path_argument,
        default=Path("checkpoints/metric_networks"),
        metavar="FOLDER",
        help="folder to look for metric networks in (default: checkpoints/metric_networks)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help="run folder of main.py, or weight file"
    )
    parser.add_argument(
        "--config",
        type=path_argument,
        metavar="YAML",
        help="config of a weight file that has none of its own",
    )
    parser.add_argument("--raw", action="store_true", help="use the raw weights instead of the EMA weights")
    parser.add_argument(
        "--precision", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the fastest available)")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="images sampled at once (default: 16)"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, 1 if some faces could not be read, 2 for user errors, 130 if interrupted."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    tasks = [task for task in options.tasks.split(",") if task]
    for task in tasks:
        if task not in TASKS:
            parser.error(f"unknown task {task!r}; available: {', '.join(TASKS)}")
    if not tasks:
        parser.error("--tasks must name at least one task")
    if options.batch_size < 1:
        parser.error(f"--batch-size must be at least 1, got {options.batch_size}")
    networks = dict(text.partition("=")[::2] for text in options.metric_network)
    if not all(networks.values()):
        parser.error("--metric-network must be NAME=PATH, such as lpips=alexnet-owt-7be5be79.pth")
    sampling = dict(text.partition("=")[::2] for text in options.sampling)
    if not all(sampling.values()):
        parser.error("--sampling must be OPTION=VALUE, such as guidance=1.5")
    from ldm.pipeline.memory import format_error

    try:
        report = _evaluate(options, [task for task in TASKS if task in tasks], networks, sampling)
    except KeyboardInterrupt:
        print("evaluate.py: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"evaluate.py: {format_error(error, options.batch_size)}", file=sys.stderr)
        return 2
    if report is None:
        return 0
    print(f"\n{report.markdown()}\nThe report is in {options.out / 'report.md'}")
    return 1 if report.problems else 0


def _evaluate(
    options: argparse.Namespace, tasks: list[str], networks: dict[str, str], sampling: dict[str, str]
) -> Any:
    """Run the evaluation; return its report, or None in processes other than rank 0."""
    import yaml

    from ldm.evaluation.evaluation import Evaluation
    from ldm.evaluation.protocol import SYNTHETIC, load_protocol

    overrides = {name: getattr(options, name) for name in ("data", "first", "last", "samples")}
    protocol = load_protocol(
        options.protocol or (SYNTHETIC if options.data == SYNTHETIC else "folder"),
        ROOT / "configs" / "evaluation",
        overrides | {"sampling": {name: yaml.safe_load(value) for name, value in sampling.items()}},
    )
    return Evaluation(
        weights=options.weights,
        protocol=protocol,
        out=options.out,
        tasks=tasks,
        networks_folder=options.metric_networks,
        networks=networks,
        batch_size=options.batch_size,
        options={
            "config": options.config,
            "weights": "raw" if options.raw else None,
            "precision": options.precision,
            **({"device": options.device} if options.device else {}),
        },
    ).run()


if __name__ == "__main__":
    sys.exit(main())
