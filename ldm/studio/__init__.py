"""The studio: edit faces in the browser. Layout and events only; FacePipeline runs the model."""

import sys
from collections.abc import Sequence

from ldm.studio.options import build_parser, check, close_environment
from ldm.studio.server.network import free_port


def main(arguments: Sequence[str] | None = None, program: str = "gradio_img2img.py") -> int:
    """Run the studio until it is stopped; return 0, or 2 if an option cannot be used."""
    parser = build_parser()
    parser.prog = program
    options = parser.parse_args(arguments)
    check(parser, options)
    close_environment()
    try:
        free_port(options.host, options.port)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    from ldm.studio.launch import run  # takes seconds, which --help does not need

    return run(parser, options)
