"""Write images and label maps as tar shards, for `ldm.data.datasets.shards.ShardedFaces`.

The source is a folder with images/ and labels/, whose files are stored unchanged, or any dataset of a config,
whose items are stored as PNGs at the size of the dataset. Images are distributed over the shards in random
order.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from ldm.arguments import path_argument
from scripts.dataset_export import add_config_options, load_data_config, user_errors


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data", type=path_argument, metavar="FOLDER", help="folder with images/ and labels/"
    )
    add_config_options(parser, source)
    parser.add_argument(
        "--split", default="train", help="dataset of the config: train, validation or test (default: train)"
    )
    parser.add_argument(
        "--label-set", default="CelebAMask-HQ", help="label set of --data (default: CelebAMask-HQ)"
    )
    parser.add_argument("--out", type=path_argument, required=True, metavar="FOLDER", help="output folder")
    parser.add_argument(
        "--per-shard", type=int, default=1000, metavar="N", help="images per shard (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the images (default: 0)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)

    from ldm.data.datasets.export import check_export  # imports that --help does not need
    from ldm.data.datasets.shard_writer import dataset_samples, folder_samples, write_shards
    from ldm.targets import instantiate_from_config

    with user_errors(parser):
        if options.data is not None:
            source = folder_samples(options.data, options.label_set, options.seed)
        else:
            config = load_data_config(options)
            dataset = (config["data"].get("params") or {}).get(options.split)
            if dataset is None:
                parser.error(f"--split {options.split}: the config has no data.params.{options.split}")
            source = dataset_samples(instantiate_from_config(dataset), options.seed)
        check_export(options.out, "00000.tar", [*source.files, *(options.base or [])], source.size)
        index = write_shards(options.out, source.label_set, source.samples, options.per_shard)
    override = (
        "data.params.train={target: ldm.data.datasets.shards.ShardedFaces, params: {path: "
        f"{json.dumps(str(options.out))}, size: '${{data.params.validation.params.size}}'}}}}"
    )
    print(f"{options.out}: {sum(index.counts):,} images in {len(index.files)} shards; train with")
    print(f"  python main.py -b YAML -t {shlex.quote(override)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
