"""The studio: edit a face in the browser. Layout and events; all that the model does, FacePipeline does."""

from collections.abc import Sequence

from ldm.studio.options import build_parser, check, close_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studio until it is stopped; return 0, or 2 for a mistake in the command."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    check(parser, options)
    close_environment()
    from ldm.studio.launch import run  # seconds of imports, which --help does not need

    return run(parser, options)
