"""Export a model to ONNX: encode, style, condition, denoise and decode, and a face parser if one is given.

FOLDER gets one .onnx file per network, and model.json with the regions, the sizes and the noise schedule. The
batch size is dynamic; images have the size that the model was trained at. docs/onnx.md has a sampling loop in
NumPy.
"""

import argparse
import sys
from importlib.util import find_spec

from ldm.arguments import path_argument


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="a run folder of main.py, a weight file, or owner/name on the hub")
    parser.add_argument("out", type=path_argument, metavar="FOLDER", help="where the files are written")
    parser.add_argument(
        "--config", type=path_argument, metavar="YAML", help="config of a weight file without one"
    )
    parser.add_argument(
        "--parser", metavar="PATH", help="also export this face parser, such as checkpoints/faces/parser"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        parser.error(f'{" and ".join(missing)} not installed; run: pip install "sca-dm[onnx]"')

    from ldm.checkpoints.errors import CheckpointError  # imports that --help does not need
    from ldm.output_files import check_outputs
    from ldm.parsing import FaceParser
    from ldm.pipeline import FacePipeline
    from ldm.pipeline.onnx_export import DESCRIPTION, NETWORKS, PARSER, export_onnx

    names = [f"{name}.onnx" for name in (*NETWORKS, PARSER)]
    try:
        check_outputs([options.out / name for name in (*names, DESCRIPTION)], [])
        pipe = FacePipeline.from_pretrained(options.weights, config=options.config, device="cpu")
        face_parser = FaceParser.from_pretrained(options.parser, device="cpu") if options.parser else None
        files = export_onnx(pipe, options.out, face_parser)
    except (CheckpointError, OSError, ValueError) as error:
        parser.error(str(error))
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
