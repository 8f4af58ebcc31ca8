"""The studio: edit faces in the browser. Layout and events only; FacePipeline runs the model."""

from collections.abc import Sequence

from ldm.studio.options import build_parser, check, close_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studio until it is stopped; return 0, or 2 for a usage error."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    check(parser, options)
    close_environment()
    from ldm.studio.launch import run  # takes seconds, which --help does not need

    return run(parser, options)
