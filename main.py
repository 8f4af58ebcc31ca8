"""Train, validate and test from YAML: `python main.py -b configs/latent-diffusion/small.yaml -t`."""

import argparse
import difflib
import os
import sys
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar; `dotted.key=value` overrides stand beside it."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Train, validate and test from YAML.",
        epilog="Any key of the YAMLs can be set from here: dotted.key=value, such as data.params.batch_size=4 "
        "lightning.trainer.max_steps=1000. Files merge left to right, then these.",
        usage="main.py -b A.yaml [B.yaml ...] -t [options] [dotted.key=value ...]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-b", "--base", nargs="+", default=[], metavar="YAML", help="configs, merged left to right"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("-t", "--train", action="store_const", dest="action", const="train", help="train")
    action.add_argument(
        "--validate", action="store_const", dest="action", const="validate", help="validate a run"
    )
    action.add_argument("--test", action="store_const", dest="action", const="test", help="test a run")
    action.add_argument(
        "--dry-run",
        action="store_const",
        dest="action",
        const="dry-run",
        help="print the merged config and the parameter counts, do nothing else",
    )
    parser.add_argument(
        "-r", "--resume", type=Path, metavar="RUN", help="go on with a run folder, or from a checkpoint in it"
    )
    parser.add_argument(
        "-n", "--name", help="of the run folder, behind the timestamp (default: the first YAML's)"
    )
    parser.add_argument("-s", "--seed", type=int, help="of everything random (default: the config's, or 23)")
    parser.add_argument(
        "-l", "--logdir", type=Path, default=Path("runs"), help="where run folders are made (default: runs/)"
    )
    parser.add_argument(
        "--allow-targets",
        type=lambda names: tuple(filter(None, names.split(","))),
        default=(),
        metavar="PACKAGE,...",
        help="packages outside this project whose classes --resume, --validate, --test and --dry-run may import",
    )
    parser.add_argument("--no-scale-lr", action="store_true", help="take base_learning_rate as it is")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line, overrides wherever they stand; exit with one sentence on what is not understood."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    options.overrides = [word for word in options.base if _is_override(word)] + rest
    options.base = [word for word in options.base if not _is_override(word)]
    for word in rest:
        if not _is_override(word):
            known = [option for action in parser._actions for option in action.option_strings]
            close = difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]
            parser.error(f"{word!r} is neither an option nor dotted.key=value; did you mean {close}?")
    if options.action is None:
        parser.error("nothing to do; add -t to train, --validate, --test, or --dry-run to look at the config")
    if not options.base and options.resume is None:
        parser.error("no config; name one with -b, or a run with --resume")
    if options.seed is not None and not 0 <= options.seed < 2**32:
        parser.error(f"--seed {options.seed}: wanted 0 to {2**32 - 1}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for a user's error, 3 for a loss that is not finite."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    # Threads that spin while they wait for one that another process has displaced slow training on the CPU tenfold;
    # sleeping costs nothing measurable on an idle machine. OpenMP reads this as torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ldm.training.heap import ask_for_huge_pages

    ask_for_huge_pages()
    from ldm.training.session import Options, run  # seconds of imports, which --help does not need

    return run(
        Options(
            action=options.action,
            base=tuple(map(Path, options.base)),
            overrides=tuple(options.overrides),
            resume=options.resume,
            name=options.name,
            seed=options.seed,
            logdir=options.logdir,
            scale_lr=not options.no_scale_lr,
            allow_targets=options.allow_targets,
        )
    )


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-") and not Path(word).is_file()


if __name__ == "__main__":
    sys.exit(main())
