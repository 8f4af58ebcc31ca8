"""Compute the first-stage latents of the training and validation data once, so that training does not have to.

Takes the configs and overrides of main.py; then train with data.params.latents=FOLDER. After an interruption,
the same command continues; called again, it computes only shards whose content has changed.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from ldm.arguments import path_argument
from scripts.dataset_export import add_config_options, load_data_config, user_errors

SPLITS = ("train", "validation")


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument(
        "--out",
        type=path_argument,
        required=True,
        metavar="FOLDER",
        help="output folder, for train/ and validation/",
    )
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest available)")
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="images encoded at once (default: 8)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)

    from ldm.checkpoints.fingerprint import fingerprint  # imports that --help does not need
    from ldm.checkpoints.locate import usable_device
    from ldm.data.datasets.latent_cache import without_flips, write_latents
    from ldm.targets import instantiate_from_config

    with user_errors(parser):
        config = load_data_config(options)
        first_stage_config = config["model"]["params"]["first_stage_config"]
        first_stage = instantiate_from_config(first_stage_config)
        first_stage.eval().requires_grad_(False)
        name, device = fingerprint(first_stage), usable_device(options.device)
        first_stage.to(device)
        sources = {split: config["data"]["params"].get(split) for split in SPLITS}
        datasets = {
            split: instantiate_from_config(without_flips(source)[0])
            for split, source in sources.items()
            if source is not None
        }
        checkpoint = (first_stage_config.get("params") or {}).get("ckpt_path")
        for split, dataset in datasets.items():
            _check_output(
                options.out / split, dataset, [*options.base, *([Path(checkpoint)] if checkpoint else [])]
            )
        for split, dataset in datasets.items():
            computed = write_latents(
                options.out / split,
                dataset,
                lambda image: first_stage.encode(image.to(device)),
                source=sources[split],
                first_stage=name,
                batch_size=options.batch_size,
            )
            print(f"{options.out / split}: computed {computed} shards, kept the others")
    print(f"Train with data.params.latents={options.out}")
    return 0


def _check_output(folder: Path, dataset: Any, inputs: list[Path]) -> None:
    """Check that the cache of a dataset can be written to `folder`; raise OutputError otherwise."""
    from ldm.data.datasets.export import check_export, dataset_files

    if not len(dataset):
        raise ValueError(f"the dataset for {folder} is empty")
    height, width = dataset[0]["labels"].shape
    present = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    size = (
        4 * height * width * len(dataset) - present
    )  # 4 bytes of image and label map per pixel, without latents
    check_export(folder, "00000-.safetensors", [*dataset_files(dataset), *inputs], max(size, 0))


if __name__ == "__main__":
    sys.exit(main())
