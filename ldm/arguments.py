"""Values of command-line arguments. Imports nothing heavy."""

import argparse
from pathlib import Path


def path_argument(text: str) -> Path:
    """Parse a path; an empty one is an error instead of the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; write . for the current folder")
    return Path(text)


def listed_names(text: str) -> list[str]:
    """Return the names in "hair, u_lip"."""
    return [name.strip() for name in text.split(",")]
