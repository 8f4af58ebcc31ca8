"""Options, config and checks that make_shards.py and cache_latents.py share."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ldm.arguments import path_argument


def add_config_options(parser: argparse.ArgumentParser, base: Any = None) -> None:
    """Add -b/--base, to the group `base` if given, and the overrides."""
    (base or parser).add_argument(
        "-b",
        "--base",
        nargs="+",
        type=path_argument,
        required=base is None,
        metavar="YAML",
        help="configs, as for main.py",
    )
    parser.add_argument("overrides", nargs="*", help="config values as dotted.key=value, as for main.py")


def load_data_config(options: argparse.Namespace) -> dict[str, Any]:
    """Return the config of --base with the overrides; it may omit keys that only training needs."""
    from ldm.training.config import load_config

    return load_config(options.base, options.overrides, complete=False)


@contextmanager
def user_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Exit with status 2 and one sentence on errors that the user can fix."""
    from ldm.training.user_errors import UserError, error_sentence, explained

    try:
        with explained():
            yield
    except UserError as error:
        parser.error(error_sentence(error))
