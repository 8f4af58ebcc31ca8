"""Command lines with strange values: of sampling, and of the scripts that prepare data."""

import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from PIL import Image

from ldm.checkpoints.io import write_checkpoint
from ldm.cli import main as sample
from scripts import cache_latents, draw_faces, evaluate, export_model, make_shards, prepare_celebamask
from tests import small
from tests.fuzz.configs import REST
from tests.fuzz.oracle import Case

VALUES = (
    *("", " ", ",", "0", "-1", "1", "2", "nan", "inf", "-inf", "1e400", "9" * 400, "1.5", "true", "None"),
    *("x", "é", "x" * 300, "a\udcff", "\n", "<b>", "../..", "/", "/dev/null", "/dev/zero", "/proc/self/mem"),
    *("hair", "hair,skin", "hair=2", "hair=nan", "=", "hair=", "0-9", "9-0", "0-99999999999999", "next"),
    *(
        "meta",
        "mps",
        "cuda:99",
        "cpu:7",
        "pipe:touch canary",
        "$(touch canary)",
        "https://127.0.0.1:1/x",
        "a/b",
    ),
)
EVALUATION = ["--data", "--weights", "--device", "--protocol", "--tasks", "--sampling", "--precision"]
OUTSIDE = ("/", "../..")  # results would lie outside of the temporary folder
Command = Callable[[list[str]], int]


def option_cases(folder: Path, seed: int) -> Iterator[Case]:
    """Each case sets one or two options to strange values; no input may change."""
    commands = _commands(folder)
    number = 0
    while True:
        rng = random.Random(f"{seed} options {number}")
        name, main, words, options = commands[number % len(commands)]
        changed = list(words)
        chosen = rng.sample(options, rng.choice((1, 1, 2)))
        names: list[str] = []
        for option in chosen:
            value = rng.choice([value for value in VALUES if option != "--out" or value not in OUTSIDE])
            names += [
                option.strip("-").replace("-", " "),
                option,
                *([re.split("[,/]", value.strip())[0][:20]] if value.strip(" /,\n") else []),
            ]
            if option in changed:
                changed[changed.index(option) + 1] = value
            else:
                changed += [option, value]
        yield _case(folder, f"{name} {' '.join(changed)}", main, changed, names)
        number += 1


def _case(folder: Path, change: str, main: Command, words: list[str], names: list[str]) -> Case:
    inputs = _contents(folder / "inputs")

    def call() -> int:
        try:
            return main(words)
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)
            if (changed := _contents(folder / "inputs")) != inputs:
                raise RuntimeError(f"inputs changed: {sorted(dict(inputs.items() ^ changed.items()))}")

    return Case(change, call, tuple(names), warned=True)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def _commands(folder: Path) -> list[tuple[str, Command, list[str], list[str]]]:
    """Write the inputs; return name, function, sound words and options of every command."""
    inputs, out = folder / "inputs", str(folder / "out")
    config = small.diffusion()
    write_checkpoint(inputs / "weights", small.sensitive(config).state_dict(), {"model": config})
    draw_faces.main([str(inputs / "faces"), "--count", "2", "--size", "16"])
    base = inputs / "config.yaml"
    base.write_text(yaml.safe_dump({"model": config, **REST}))
    faces, weights = str(inputs / "faces"), str(inputs / "weights")
    cpu = ["--device", "cpu"]
    common = ["--data", faces, "--checkpoint", weights, *cpu, "--out", out, "--steps", "1"]
    sampling = ["--data", "--names", "--out", "--batch-size", "--checkpoint", "--weights", "--precision"]
    sampling += ["--device", "--steps", "--solver", "--spacing", "--eta", "--guidance", "--null", "--seed"]
    sampling += ["--overview", "--config"]
    download = str(inputs / "CelebAMask-HQ")
    _write_download(inputs / "CelebAMask-HQ")
    tasks: list[tuple[str, list[str], list[str]]] = [
        ("reconstruct", [], []),
        ("swap", ["--style", "next"], ["--style", "--style-mask", "--regions"]),
        ("compose", ["--part", "hair=next"], ["--part"]),
        ("random", ["--regions", "hair", "--samples", "1"], ["--regions", "--samples"]),
        ("noise", ["--samples", "1"], ["--samples"]),
        ("interpolate", ["--style", "next", "--frames", "2"], ["--style", "--frames", "--animate"]),
        ("reshape", ["--shape", "next"], ["--shape"]),
    ]
    commands: list[tuple[str, Command, list[str], list[str]]] = [
        ("sca-dm", sample, [task, *common, *words], [*sampling, *own]) for task, words, own in tasks
    ]
    return [
        *commands,
        (
            "make_shards",
            make_shards.main,
            ["--data", faces, "--out", out],
            ["--data", "--out", "--per-shard", "--seed", "--label-set", "--split"],
        ),
        (
            "cache_latents",
            cache_latents.main,
            ["-b", str(base), "--out", out, *cpu],
            ["-b", "--out", "--device", "--batch-size"],
        ),
        ("evaluate", evaluate.main, ["--weights", weights, "--data", faces, "--out", out, *cpu], EVALUATION),
        (
            "export_model",
            export_model.main,
            [weights, f"{out}/model"],
            ["--weights", "--precision", "--config"],
        ),
        ("prepare_celebamask", prepare_celebamask.main, [download, out], ["--names", "--split", "--size"]),
        (
            "draw_faces",
            draw_faces.main,
            [out, "--count", "1", "--size", "16"],
            ["--count", "--size", "--seed"],
        ),
    ]


def _write_download(folder: Path) -> None:
    """Write a photo and a part of it as CelebAMask-HQ's download has them."""
    (folder / "CelebA-HQ-img").mkdir(parents=True)
    (folder / "CelebAMask-HQ-mask-anno" / "0").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "CelebA-HQ-img" / "0.jpg")
    Image.new("L", (32, 32), 255).save(folder / "CelebAMask-HQ-mask-anno" / "0" / "00000_skin.png")
