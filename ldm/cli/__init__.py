"""The command line of sampling: `sca-dm`, `python -m ldm` and scripts/sample_sem.py are all this."""

import sys
from collections.abc import Sequence

from ldm.cli.commands import COMMANDS, run_command
from ldm.cli.grammar import build_parser, check


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 if some files could not be used, 2 for a mistake in the command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        return run_command(words[0], words[1:])
    parser = build_parser("sca-dm" if sys.argv[0].endswith("__main__.py") else None)
    options = parser.parse_args(words)
    check(parser, options)
    from ldm.cli.dataset_job import run_dataset  # seconds of imports, which --help does not need
    from ldm.cli.faces_job import run_faces
    from ldm.cli.job import run
    from ldm.cli.photo_job import run_photo
    from ldm.parsing.detection import DetectionError
    from ldm.pipeline.memory import format_error

    jobs = {"photo": run_photo, "faces": run_faces, "dataset": run_dataset}
    try:
        return jobs.get(options.task, run)(options)
    except (ValueError, OSError, RuntimeError, MemoryError, DetectionError) as error:
        print(f"{parser.prog}: {format_error(error, getattr(options, 'batch_size', None))}", file=sys.stderr)
        return 2
