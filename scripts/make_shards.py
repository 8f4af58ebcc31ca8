"""Write pictures and label maps into tar files of some thousand each, for `ldm.data.datasets.shards.ShardedFaces`.

From a folder with images/ and labels/, whose files go in as they are; or from any dataset of a YAML, whose items go in
without loss, at the dataset's size. Pictures are dealt to the shards in a random order.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help="a folder with images/ and labels/")
    source.add_argument("-b", "--base", nargs="+", type=Path, metavar="YAML", help="YAMLs with the dataset")
    parser.add_argument("--split", default="train", help="of the YAMLs: train, validation or test (train)")
    parser.add_argument("--label-set", default="CelebAMask-HQ", help="of the folder's labels (CelebAMask-HQ)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--per-shard", type=int, default=1000, metavar="N", help="pictures of a shard (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which pictures are dealt (0)")
    parser.add_argument("overrides", nargs="*", help="dotted.key=value, for the YAMLs")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)

    from ldm.data.datasets.shard_writer import dataset_samples, folder_samples, write_shards  # slow imports
    from ldm.targets import instantiate_from_config
    from ldm.training.config import load_config
    from ldm.training.user_errors import UserError, error_sentence, explained

    try:
        with explained(ValueError, OSError, ImportError, TypeError, KeyError):
            if options.data is not None:
                label_set, samples = folder_samples(options.data, options.label_set, options.seed)
            else:
                config = load_config(options.base, options.overrides, complete=False)
                source = (config["data"].get("params") or {}).get(options.split)
                if source is None:
                    parser.error(f"the YAMLs have no data.params.{options.split}")
                label_set, samples = dataset_samples(instantiate_from_config(source), options.seed)
            index = write_shards(options.out, label_set, samples, options.per_shard)
    except UserError as error:
        parser.error(error_sentence(error))
    override = (
        "data.params.train={target: ldm.data.datasets.shards.ShardedFaces, params: {path: "
        f"{json.dumps(str(options.out))}, size: '${{data.params.validation.params.size}}'}}}}"
    )
    print(f"{options.out}: {sum(index.pictures):,} images in {len(index.files)} shards; train with")
    print(f"  python main.py -b YAML -t {shlex.quote(override)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
