"""Compute the first-stage latents of a training's pictures once, so that training need not.

Takes main.py's YAMLs and overrides; then train with data.params.latents=FOLDER added. Stopped, the same command goes
on; called again, it computes only what changed.
"""

import argparse
import sys
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-b", "--base", nargs="+", type=Path, required=True, help="YAMLs of the diffusion")
    parser.add_argument("--out", type=Path, required=True, help="the folder; gets train/ and validation/")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the best there is")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures encoded at once (8)")
    parser.add_argument("overrides", nargs="*", help="dotted.key=value, as for main.py")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)

    from ldm.checkpoints.fingerprint import fingerprint
    from ldm.checkpoints.locate import usable_device
    from ldm.data.datasets.latent_cache import (  # imports that --help does not need
        without_flips,
        write_latents,
    )
    from ldm.targets import instantiate_from_config
    from ldm.training.config import load_config
    from ldm.training.user_errors import UserError, error_sentence, explained

    try:
        with explained(ValueError, OSError, ImportError, TypeError, KeyError):
            config = load_config(options.base, options.overrides, complete=False)
            first_stage = instantiate_from_config(config["model"]["params"]["first_stage_config"])
            first_stage.eval().requires_grad_(False)
            name, device = fingerprint(first_stage), usable_device(options.device)
            first_stage.to(device)
            for split in ("train", "validation"):
                source = config["data"]["params"].get(split)
                if source is None:
                    continue
                computed = write_latents(
                    options.out / split,
                    instantiate_from_config(without_flips(source)[0]),
                    lambda image: first_stage.encode(image.to(device)),
                    source=source,
                    first_stage=name,
                    batch_size=options.batch_size,
                )
                print(f"{options.out / split}: computed {computed} shards; the others were there")
    except UserError as error:
        parser.error(error_sentence(error))
    print(f"Train with data.params.latents={options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
