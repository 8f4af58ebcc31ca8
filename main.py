"""Train, validate and test from YAML. The same as `sca-dm train`: `python main.py --help` lists the options."""

import sys

from ldm.training.command_line import build_parser, main, parse

__all__ = ["build_parser", "main", "parse"]

if __name__ == "__main__":
    sys.exit(main())
