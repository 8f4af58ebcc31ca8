"""The kinds of malformed inputs, and how many cases of each are tried."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.fuzz import configs, datasets, images, options, styles, weights
from tests.fuzz.oracle import Case, verdict


@dataclass(frozen=True)
class Kind:
    """A kind of malformed input.

    Args:
        cases: endless cases from a folder for their files and a seed.
        whole: number of cases of `make fuzz`.
        slice: number of cases of the test suite.
    """

    cases: Callable[[Path, int], Iterator[Case]]
    whole: int
    slice: int


KINDS = {
    "photos": Kind(images.photo_cases, 800, 64),
    "label maps": Kind(images.label_cases, 800, 60),
    "training configs": Kind(configs.training_cases, 600, 12),
    "configs of weights": Kind(configs.weights_cases, 400, 12),
    "weights": Kind(weights.byte_cases, 600, 60),
    "pickle opcodes": Kind(weights.opcode_cases, 600, 60),
    "styles": Kind(styles.style_cases, 400, 40),
    "recipes": Kind(styles.recipe_cases, 300, 20),
    "shards": Kind(datasets.shard_cases, 300, 20),
    "latent caches": Kind(datasets.latent_cases, 300, 20),
    "options": Kind(options.option_cases, 300, 13),
}


def failures(kind: str, count: int, seed: int) -> Iterator[str]:
    """Run cases of a kind; yield number, change and verdict of those that fail."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # where a canary or a forgotten file would appear
        try:
            for number, case in enumerate(islice(KINDS[kind].cases(Path(name), seed), count)):
                if (fault := verdict(case, Path(name))) is not None:
                    yield f"{kind} {number}: {case.change}: {fault}"
        finally:
            os.chdir(before)
