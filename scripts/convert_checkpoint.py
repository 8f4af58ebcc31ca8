"""Convert a first stage (such as VQ-F4) between our folders, CompVis' .ckpt files and diffusers' folders.

Detects the kind of the input: a run folder, a weight file, a complete diffusion model (its first stage is
used), or a folder of diffusers, of the model or of a pipeline with vqvae/. No value changes.
"""

import argparse
import sys
from pathlib import Path

from ldm.arguments import path_argument


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", help="a file or folder with a first stage")
    parser.add_argument(
        "output", type=path_argument, help="the folder to write; for compvis a file NAME.ckpt"
    )
    parser.add_argument("--to", required=True, choices=("ours", "diffusers", "compvis"))
    parser.add_argument("--config", type=path_argument, help="config of a weight file that has none")
    options = parser.parse_args(arguments)

    # Imports that --help does not need.
    from ldm.checkpoints.convert import output_files, read_first_stage, write_first_stage
    from ldm.checkpoints.errors import CheckpointError
    from ldm.output_files import check_outputs

    try:
        stage = read_first_stage(options.input, options.config)
        read = [Path(options.input), *([options.config] if options.config else [])]
        read += [file for file in read[0].glob("*") if read[0].is_dir()]
        check_outputs(output_files(options.to, options.output), read)
        file = write_first_stage(stage, options.to, options.output)
    except (CheckpointError, ValueError, OSError) as error:
        parser.error(str(error))
    numbers = sum(tensor.numel() for tensor in stage.weights.values())
    factor = 2 ** (len(stage.params["ddconfig"]["ch_mult"]) - 1)
    entries, width = stage.params["n_embed"], stage.params["embed_dim"]
    print(f"{options.input}: {stage.origin}; f = {factor}, {entries} entries of {width} numbers")
    print(f"{file}: {numbers / 1e6:.1f} M numbers, {file.stat().st_size / 1e6:.1f} MB")
    if options.to != "diffusers" and stage.scale_factor != 1:
        scale = f"the scale of its latents, {stage.scale_factor:g}, is not kept"
        print(f"{scale}: only needed by a diffusion that was trained with it, as scale_factor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
