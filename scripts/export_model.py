"""Write the weights of a run as a folder to share: model.safetensors and config.yaml.

One set of weights, EMA weights if the run has them, with the first stage; matrices in half precision. Every
command accepts the folder, and so does training as initial weights: model.params.ckpt_path=FOLDER.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ldm.arguments import path_argument


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a run folder of main.py, a weight file, or owner/name on the hub")
    parser.add_argument("out", type=path_argument, help="the folder to write")
    parser.add_argument(
        "--config", type=path_argument, help="the YAML, for weight files that come without one"
    )
    parser.add_argument(
        "--weights", choices=("ema", "raw"), help="averaged (where there are any) or last ones"
    )
    parser.add_argument(
        "--precision",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="of matrices and kernels; vectors keep theirs (float16)",
    )
    parser.add_argument(
        "--ema-length",
        type=float,
        metavar="SIGMA",
        help="weights averaged over this share of the training, such as 0.1, for a run with the callback PosthocEMA",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.ema_length is not None and options.weights:
        parser.error("--ema-length computes averaged weights itself; remove --weights")

    import torch  # imports that --help does not need

    from ldm.checkpoints.errors import CheckpointError
    from ldm.checkpoints.io import build_model, write_checkpoint
    from ldm.checkpoints.locate import find_model
    from ldm.checkpoints.state_dict import has_ema
    from ldm.output_files import check_outputs
    from ldm.pipeline.pretrained import Weights
    from ldm.pipeline.sharing import lean_config
    from ldm.training.posthoc_ema import averaged

    try:
        checkpoint, config = find_model(options.model, options.config)
        outputs = [options.out / name for name in ("model.safetensors", "config.yaml")]
        inputs = [checkpoint.path, checkpoint.path.with_name("config.yaml")]
        check_outputs(outputs, [*inputs, *([options.config] if options.config else [])])
        weights: Weights = options.weights or ("ema" if has_ema(checkpoint.state_dict) else "raw")
        if options.ema_length is not None:
            lengthened, step = averaged(Path(options.model), options.ema_length)
            checkpoint = replace(
                checkpoint, state_dict=checkpoint.state_dict | lengthened, step=step, epoch=None
            )
            weights = "raw"
        state = build_model(config, checkpoint, weights=weights).state_dict()
        lean = lean_config(config, state)
        dtype = getattr(torch, options.precision)
        facts = {"step": checkpoint.step, "epoch": checkpoint.epoch}
        known = {key: value for key, value in facts.items() if value is not None}
        options.out.mkdir(parents=True, exist_ok=True)
        file = write_checkpoint(options.out, state, lean, known, dtype=dtype)
    except (CheckpointError, OSError, ValueError) as error:
        parser.error(str(error))
    count = sum(tensor.numel() for tensor in state.values())
    kind = weights if options.ema_length is None else f"averaged ({options.ema_length})"
    print(f"{file}: {count / 1e6:.1f} M numbers, {file.stat().st_size / 1e6:.1f} MB, {kind} weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
