"""Weights, style codes and recipes with changed bytes or values."""

import io
import json
import pickle
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from ldm.checkpoints.io import read_checkpoint
from ldm.data.labels import CELEBAMASK_HQ
from ldm.pipeline import FacePipeline
from ldm.pipeline.recipe import Recipe
from ldm.pipeline.style_code import load_style
from tests import small
from tests.fuzz.changes import changed_bytes, changed_value
from tests.fuzz.oracle import Case

STATE = {"unet.weight": torch.arange(60.0).view(5, 12), "unet.bias": torch.arange(5.0)}


def weight_cases(folder: Path) -> Iterator[Case]:
    """Weight files by byte: loaded with the same numbers, or refused."""
    save_file(STATE, folder / "sound.safetensors")
    torch.save({"state_dict": STATE}, folder / "sound.ckpt")
    sound = {suffix: (folder / f"sound.{suffix}").read_bytes() for suffix in ("safetensors", "ckpt")}
    number = 0
    while True:
        rng, suffix = random.Random(f"weights {number}"), list(sound)[number % 2]
        content, change = changed_bytes(rng, sound[suffix])
        yield _weights(folder / f"weights.{suffix}", content, change, exact=suffix == "ckpt")
        number += 1


def pickle_cases(folder: Path) -> Iterator[Case]:
    """Pickles inside torch's files, with changed opcodes and arguments and valid checksums."""
    buffer = io.BytesIO()
    torch.save({"state_dict": STATE, "epoch": 3, "names": ["a", "b"]}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))
    opcodes = [getattr(pickle, name) for name in dir(pickle) if isinstance(getattr(pickle, name), bytes)]
    number = 0
    while True:
        rng = random.Random(f"pickle {number}")
        content, change = changed_bytes(rng, members[pickled])
        if number % 2:
            at = rng.randrange(len(content)) if content else 0
            opcode = rng.choice(opcodes)
            content = content[:at] + opcode + content[at + rng.randrange(2) :]
            change += f", opcode {opcode!r} at {at}"
        changed = io.BytesIO()
        with zipfile.ZipFile(changed, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, content if name == pickled else data)
        yield _weights(folder / "pickle.ckpt", changed.getvalue(), change, exact=False)
        number += 1


def _weights(file: Path, content: bytes, change: str, exact: bool) -> Case:
    def call() -> None:
        file.write_bytes(content)
        read_checkpoint(file)

    def right() -> None:
        found = read_checkpoint(file).state_dict
        assert all(isinstance(value, torch.Tensor) for value in found.values()), "not only tensors"
        if exact:
            for name, value in STATE.items():
                assert name not in found or torch.equal(found[name], value), f"other numbers in {name}"

    return Case(f"{file.name}: {change}", call, (file.name,), right)


def tiny_pipeline() -> FacePipeline:
    """Return a pipeline with a small model."""
    return FacePipeline(small.sensitive(small.diffusion()), CELEBAMASK_HQ, (16, 16))


def style_cases(folder: Path) -> Iterator[Case]:
    """Style files by byte."""
    pipe, batch = tiny_pipeline(), small.batch(1)
    style = pipe.read_style(batch["image"][0], batch["labels"][0])
    style.save(folder / "sound.style")
    sound, number = (folder / "sound.style").read_bytes(), 0
    while True:
        content, change = changed_bytes(random.Random(f"style {number}"), sound)
        file = folder / "face.style"

        def call(content: bytes = content, file: Path = file) -> None:
            file.write_bytes(content)
            load_style(file, CELEBAMASK_HQ)

        def right(file: Path = file) -> None:
            found = load_style(file, CELEBAMASK_HQ).codes
            assert torch.equal(found, style.codes), "other codes"

        yield Case(f"{file.name}: {change}", call, (file.name,), right)
        number += 1


def recipe_cases(folder: Path) -> Iterator[Case]:
    """Recipes of the studio by value, and by byte of their text."""
    pipe, batch = tiny_pipeline(), small.batch(1)
    image, labels = batch["image"][0], batch["labels"][0].to(torch.uint8)
    style = pipe.read_style(image, labels)
    how = {"seed": 3, "steps": 2, "solver": "ddim", "guidance": 1.5}
    recipe = Recipe(style, labels, how, image, labels, ("hair",), {"face": "a", "parts": ["hair random"]})
    sound = json.loads(recipe.to_text(pipe))
    number = 0
    while True:
        rng = random.Random(f"recipe {number}")
        if number % 3:
            value, _, change = changed_value(rng, sound)
            text = json.dumps(value, default=str)
        else:
            content, change = changed_bytes(rng, json.dumps(sound).encode())
            text = content.decode("utf-8", "replace")

        def call(text: str = text) -> None:
            Recipe.from_text(text, pipe).make(pipe)

        yield Case(f"recipe: {change}", call, ("recipe", "steps", "seed", "guidance", "solver", "regions"))
        number += 1
