"""Types of command-line arguments. Imports nothing heavy."""

import argparse
from pathlib import Path


def output_path(text: str) -> Path:
    """Parse the path of an output; an empty one is an error instead of the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; write . for the current folder")
    return Path(text)
