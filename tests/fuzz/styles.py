"""Style code files with changed bytes and metadata; recipes with changed values, and PNGs that hold them."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import safe_open, save_file

from ldm.data.images import encode_png
from ldm.data.labels import CELEBAMASK_HQ
from ldm.pipeline import FacePipeline, Recipe, StyleCode
from ldm.pipeline.recipe import KEY, read_recipe
from ldm.pipeline.style_code import load_style
from tests import small
from tests.fuzz.changes import changed_bytes, changed_value
from tests.fuzz.oracle import Case


def style_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Style code files: every second has changed bytes, the others a changed fact of their metadata."""
    codes = torch.randn(len(CELEBAMASK_HQ), 8, generator=torch.Generator().manual_seed(0))
    sound = folder / "sound.style"
    StyleCode(codes, CELEBAMASK_HQ, "encoder").save(sound)
    data = sound.read_bytes()
    with safe_open(sound, "pt") as opened:
        facts = opened.metadata()
    sound.unlink()
    number = 0
    while True:
        rng = random.Random(f"{seed} style {number}")
        file = folder / f"changed_{number}.style"
        if number % 2:
            yield _facts_changed(file, codes, facts, rng)
        else:
            yield _bytes_changed(file, codes, data, rng)
        number += 1


def _bytes_changed(file: Path, codes: torch.Tensor, data: bytes, rng: random.Random) -> Case:
    changed, change = changed_bytes(rng, data)
    read: list[StyleCode] = []

    def call() -> None:
        file.write_bytes(changed)
        try:
            read.append(load_style(file, CELEBAMASK_HQ))
        finally:
            file.unlink()

    def right() -> None:
        assert torch.equal(read[0].codes, codes), "other codes"

    return Case(change, call, (file.name,), right)


def _facts_changed(file: Path, codes: torch.Tensor, facts: dict[str, str], rng: random.Random) -> Case:
    shape = rng.choice(((19, 8), (18, 8), (19,), (0, 8), (19, 8, 1)))
    kind = rng.choice((torch.float32, torch.float16, torch.int32, torch.bool, torch.complex64))
    changed, _, change = changed_value(rng, facts)
    content = torch.ones(shape, dtype=kind)

    def call() -> None:
        save_file({"codes": content}, file, {str(key): str(value) for key, value in changed.items()})
        try:
            load_style(file, CELEBAMASK_HQ)
        finally:
            file.unlink()

    return Case(f"{shape} {kind}, {change}", call, (file.name,))


def recipe_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Recipes: every second has a changed value, the others lie in a PNG with changed bytes."""
    pipe = FacePipeline(small.sensitive(small.diffusion()), CELEBAMASK_HQ, (16, 16))
    recipe = _recipe(pipe)
    text = recipe.to_text(pipe)
    png = encode_png(recipe.photo, {KEY: text})
    number = 0
    while True:
        rng = random.Random(f"{seed} recipe {number}")
        if number % 2:
            facts, _, change = changed_value(rng, json.loads(text))
            yield _recipe_case(pipe, encode_png(recipe.photo, {KEY: json.dumps(facts)}), change, None)
        else:
            changed, change = changed_bytes(rng, png)
            yield _recipe_case(pipe, changed, change, text)
        number += 1


def _recipe(pipe: FacePipeline) -> Recipe:
    batch = small.batch(1)
    image, labels = batch["image"], batch["labels"]
    return Recipe(
        style=pipe.read_style(image, labels)[0],
        labels=labels[0],
        how={"steps": 2, "seed": 7, "solver": "ddim", "guidance": 1.5, "guidance_interval": [0.1, 5.0]},
        photo=image[0],
        photo_labels=labels[0],
        regions=("hair",),
        said={"face": "one", "checkpoint": "small"},
    )


def _recipe_case(pipe: FacePipeline, png: bytes, change: str, text: str | None) -> Case:
    """Return a case; the recipe is used, too, and equals `text` if given."""
    read: list[Any] = []

    def call() -> None:
        read.append(read_recipe(png, pipe))
        read[0].make(pipe)

    def right() -> None:
        assert text is None or read[0].to_text(pipe) == text, "another recipe"

    return Case(change, call, ("",), right)
