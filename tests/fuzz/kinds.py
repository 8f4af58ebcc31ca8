"""All kinds of malformed inputs, and running some cases of each."""

import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from tests.fuzz.configs import training_cases, weights_cases
from tests.fuzz.folders import latent_cases, shard_cases
from tests.fuzz.images import label_map_cases, photo_cases
from tests.fuzz.numbers import pickle_cases, recipe_cases, style_cases, weight_cases
from tests.fuzz.options import option_cases
from tests.fuzz.oracle import Case, verdict

KINDS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "photos": photo_cases,
    "label maps": label_map_cases,
    "weights": weight_cases,
    "pickles": pickle_cases,
    "styles": style_cases,
    "recipes": recipe_cases,
    "shards": shard_cases,
    "latent caches": latent_cases,
    "options": option_cases,
    "training configs": training_cases,
    "model configs": weights_cases,
}


def failures(kind: str, count: int, start: int = 0) -> Iterator[str]:
    """Run `count` cases of a kind from number `start`; yield each that failed, and why."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        for case in islice(KINDS[kind](folder), start, start + count):
            fault = verdict(case, folder)
            if fault is not None:
                yield f"{case.change}: {fault}"
