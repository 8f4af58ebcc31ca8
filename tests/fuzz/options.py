"""Options of the command line with strange values."""

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from ldm.cli import main
from ldm.data.images import save_png
from ldm.data.label_maps import save_labels
from ldm.data.labels import CELEBAMASK_HQ
from tests import small
from tests.fuzz.changes import STRANGE
from tests.fuzz.oracle import Case

WORDS = (
    "nan",
    "inf",
    "-inf",
    "hair",
    "hair=",
    "=hair",
    "hair=nan",
    "hair,,skin",
    "next",
    "0",
    "-1",
    "9" * 400,
)
OPTIONS = (
    "--names", "--style", "--regions", "--seed", "--steps", "--guidance", "--solver", "--spacing", "--eta", "--order",
    "--device", "--precision", "--weights", "--config", "--overview", "--batch-size", "--mask", "--image",
)  # fmt: skip
TASKS = ("reconstruct", "swap", "noise", "random", "interpolate", "style")
REQUIRED = {"swap": ("--style", "next"), "interpolate": ("--style", "next"), "random": ("--regions", "hair")}


def option_cases(folder: Path) -> Iterator[Case]:
    """Commands with one option of another value."""
    _faces(folder / "faces")
    _model(folder / "model")
    number = 0
    while True:
        rng = random.Random(f"option {number}")
        task, option = rng.choice(TASKS), rng.choice(OPTIONS)
        value = rng.choice((*WORDS, *map(str, STRANGE)))[:300]
        words = [task, "--checkpoint", str(folder / "model"), "--data", str(folder / "faces")]
        words += ["--names", "0", "--device", "cpu", "--out", str(folder / f"out{number}")]
        words += REQUIRED.get(task, ())
        words += () if task == "style" else ("--steps", "1")
        words.append(f"{option}={value}")

        def call(words: list[str] = words) -> int:
            return main(words)

        name = option.removeprefix("--").partition("-")[0]
        yield Case(" ".join([task, words[-1][:80]]), call, (name, name.rstrip("s"), value[:20] or '""'))
        number += 1


def _faces(folder: Path) -> None:
    """Write two faces of 16 x 16 pixels."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    batch = small.batch(2)
    for name, image, labels in zip("01", batch["image"], batch["labels"], strict=True):
        save_png(folder / f"images/{name}.png", image)
        save_labels(folder / f"labels/{name}.png", labels.to(torch.uint8), CELEBAMASK_HQ)


def _model(folder: Path) -> None:
    """Write a small model."""
    import yaml

    folder.mkdir()
    config = small.diffusion(use_ema=False)
    save_file(small.sensitive(config).state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": config}))
