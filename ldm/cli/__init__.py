"""The command line of sampling: `sca-dm`, `python -m ldm` and scripts/sample_sem.py are all this."""

import os
import sys
from collections.abc import Sequence

from ldm.cli.grammar import build_parser, check
from ldm.cli.photo_grammar import PHOTO_TASKS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 if some files could not be used, 2 for a mistake in the command."""
    parser = build_parser("sca-dm" if sys.argv[0].endswith("__main__.py") else None)
    options = parser.parse_args(arguments)
    check(parser, options)
    # Before torch is imported, for main.py's reason.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ldm.cli.job import run  # seconds of imports, which --help does not need
    from ldm.cli.photo_job import run_photo
    from ldm.parsing.detection import DetectionError
    from ldm.pipeline.memory import format_error

    try:
        return run_photo(options) if options.task in PHOTO_TASKS else run(options)
    except (ValueError, OSError, RuntimeError, MemoryError, DetectionError) as error:
        print(f"{parser.prog}: {format_error(error, getattr(options, 'batch_size', None))}", file=sys.stderr)
        return 2
