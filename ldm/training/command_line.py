"""The command line of training: main.py and `sca-dm train`."""

import argparse
import sys
from pathlib import Path

from ldm.arguments import path_argument
from ldm.bundle import find_config
from ldm.closest_name import closest_name

SEEDS = 2**32


def build_parser(program: str = "main.py") -> argparse.ArgumentParser:
    """Return the parser; `dotted.key=value` overrides may stand between its options."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Train, validate and test from YAML.",
        epilog="Every key of the YAML files can be overridden as dotted.key=value, such as data.params.batch_size=4 "
        "lightning.trainer.max_steps=1000. Files are merged left to right, then overrides.",
        usage=f"{program} -b A.yaml [B.yaml ...] -t [options] [dotted.key=value ...]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-b",
        "--base",
        nargs="+",
        default=[],
        metavar="YAML",
        help="configs (files or bundled names), merged left to right",
    )
    action = parser.add_mutually_exclusive_group()
    for flags, name, text in (
        (("-t", "--train"), "train", "train"),
        (("--validate",), "validate", "validate a run"),
        (("--test",), "test", "test a run"),
        (("--dry-run",), "dry-run", "only print the merged config and the parameter counts"),
    ):
        action.add_argument(*flags, action="store_const", dest="action", const=name, help=text)
    parser.add_argument(
        "-r",
        "--resume",
        type=path_argument,
        metavar="RUN",
        help="resume a run folder, or from a checkpoint in it",
    )
    parser.add_argument(
        "-n", "--name", help="name of the run folder, after the timestamp (default: the first YAML's)"
    )
    parser.add_argument("-s", "--seed", type=int, help="random seed (default: the config's, or 23)")
    parser.add_argument(
        "-l",
        "--logdir",
        type=path_argument,
        default=Path("runs"),
        help="parent of the run folders (default: runs/)",
    )
    parser.add_argument(
        "--allow-targets",
        type=lambda names: tuple(filter(None, names.split(","))),
        default=(),
        metavar="PACKAGE,...",
        help="packages outside this project whose classes --resume, --validate, --test and --dry-run may import",
    )
    parser.add_argument("--no-scale-lr", action="store_true", help="do not scale base_learning_rate")
    return parser


def parse(arguments: list[str], program: str = "main.py") -> argparse.Namespace:
    """Parse the command line and its overrides; exit with one sentence on an error."""
    parser = build_parser(program)
    options, rest = parser.parse_known_args(arguments)
    options.overrides = [word for word in options.base if _is_override(word)] + rest
    options.base = [word for word in options.base if not _is_override(word)]
    for word in rest:
        if not _is_override(word):
            known = [option for action in parser._actions for option in action.option_strings]
            parser.error(
                f"{word!r} is neither an option nor dotted.key=value; did you mean {closest_name(word, known)}?"
            )
    if options.action is None:
        parser.error("nothing to do; add -t to train, --validate, --test, or --dry-run to look at the config")
    if not options.base and options.resume is None:
        parser.error("no config; name one with -b, or a run with --resume")
    if options.seed is not None and not 0 <= options.seed < SEEDS:
        parser.error(f"--seed must be in [0, {SEEDS - 1}], got {options.seed}")
    return options


def main(arguments: list[str] | None = None, program: str = "main.py") -> int:
    """Run the command line and return the exit code: 0, 2 for a user's error, 3 for a loss that is not finite."""
    options = parse(sys.argv[1:] if arguments is None else arguments, program)
    from ldm.training.low_memory import ask_for_huge_pages

    ask_for_huge_pages()
    from ldm.training.options import Options  # --help does not need the seconds of these imports
    from ldm.training.session import run

    return run(
        Options(
            action=options.action,
            base=tuple(find_config(Path(name)) for name in options.base),
            overrides=tuple(options.overrides),
            resume=options.resume,
            name=options.name,
            seed=options.seed,
            logdir=options.logdir,
            scale_lr=not options.no_scale_lr,
            allow_targets=options.allow_targets,
            program=program,
        )
    )


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-") and not Path(word).is_file()
