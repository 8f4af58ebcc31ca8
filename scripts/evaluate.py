"""What a model is worth in numbers: sample faces by a protocol, score them, write a report with pictures.

Stop it at any time: the same command goes on where it was. Several GPUs: torchrun --nproc-per-node N in front.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for a checkout that is not installed

TASKS = ("reconstruct", "swap", "random", "noise")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", required=True, metavar="PATH", help="a run folder of main.py, or a weight file"
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="folder with images/ and labels/, or `synthetic` for generated faces (the protocol's)",
    )
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="of configs/evaluation, or a YAML (synthetic for --data synthetic, else folder)",
    )
    parser.add_argument(
        "--tasks", default=",".join(TASKS), metavar="A,B", help=f"some of {', '.join(TASKS)} (all)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the report goes")
    parser.add_argument("--first", type=int, metavar="N", help="number of the first face (the protocol's)")
    parser.add_argument("--last", type=int, metavar="N", help="number of the last face (the protocol's)")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="pictures a mask, for diversity (the protocol's)"
    )
    parser.add_argument(
        "--sampling",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="such as guidance=1.5 or steps=50, instead of the protocol's; may be given often",
    )
    parser.add_argument(
        "--judge",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a network that judges: lpips, inception, dinov2, clip or parser; a file, a folder, or owner/name on "
        "the hub; may be given often",
    )
    parser.add_argument(
        "--judges",
        type=Path,
        default=Path("checkpoints/judges"),
        metavar="FOLDER",
        help="where those not named are looked for (checkpoints/judges)",
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="for weight files that come without one")
    parser.add_argument(
        "--raw", action="store_true", help="the UNet's last weights, where there are averaged ones"
    )
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16 (auto)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pictures at once (16)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, 1 if some faces could not be read, 2 for a mistake, 130 when stopped."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    tasks = [task for task in options.tasks.split(",") if task]
    for task in tasks:
        if task not in TASKS:
            parser.error(f"unknown task {task!r}; there are {', '.join(TASKS)}")
    if not tasks or options.batch_size < 1:
        parser.error("wanted at least one task, and a --batch-size of 1 or more")
    judges = dict(text.partition("=")[::2] for text in options.judge)
    if not all(judges.values()):
        parser.error("--judge wants NAME=PATH, such as lpips=alexnet-owt-7be5be79.pth")
    sampling = dict(text.partition("=")[::2] for text in options.sampling)
    if not all(sampling.values()):
        parser.error("--sampling wants OPTION=VALUE, such as guidance=1.5")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, for main.py's reason
    import yaml

    from ldm.evaluation.evaluation import Evaluation
    from ldm.evaluation.protocol import SYNTHETIC, load_protocol
    from ldm.pipeline.memory import format_error

    try:
        protocol = load_protocol(
            options.protocol or (SYNTHETIC if options.data == SYNTHETIC else "folder"),
            ROOT / "configs" / "evaluation",
            {name: getattr(options, name) for name in ("data", "first", "last", "samples")}
            | {"sampling": {name: yaml.safe_load(value) for name, value in sampling.items()}},
        )
        report = Evaluation(
            weights=options.weights,
            protocol=protocol,
            out=options.out,
            tasks=[task for task in TASKS if task in tasks],
            judges_folder=options.judges,
            judges=judges,
            batch_size=options.batch_size,
            options={
                "config": options.config,
                "weights": "raw" if options.raw else None,
                "precision": options.precision,
                **({"device": options.device} if options.device else {}),
            },
        ).run()
    except KeyboardInterrupt:
        print("evaluate.py: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"evaluate.py: {format_error(error, options.batch_size)}", file=sys.stderr)
        return 2
    if report is None:
        return 0
    print(f"\n{report.markdown()}\nThe report is in {options.out / 'report.md'}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
