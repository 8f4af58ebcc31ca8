"""The studio: edit a face in the browser. Layout and events; all that the model does, FacePipeline does."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studio until it is stopped; return 0, or 2 for a mistake in the command."""
    from ldm.studio.launch import run
    from ldm.studio.options import build_parser, check

    parser = build_parser()
    options = parser.parse_args(arguments)
    check(parser, options)
    return run(parser, options)
