"""Measure edits of a 12-megapixel photo: seconds by part, memory, and what changed where.

The photo is a portrait in the public domain, enlarged until the crop of its face has --face pixels, on a
canvas of 4000 x 3000 pixels with sensor noise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

import numpy as np
import torch
from PIL import Image

from ldm.bundle import ROOT
from ldm.data.color_space import ColorSpace
from ldm.pipeline import PhotoEditor
from ldm.pipeline.options import DEFAULT_STEPS
from ldm.pipeline.photo import EditedPhoto, Photo
from ldm.pipeline.region_color import lab_of
from scripts.benchmarking import peak_memory, processor

PORTRAIT = ROOT / "assets" / "photos" / "astronaut.jpg"
CANVAS = (4000, 3000)
NOISE = 2.0  # standard deviation in 0..255
COLORS = ("auburn", "platinum", "crimson", "blue", "black")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photo", type=Path, default=PORTRAIT, help="portrait (default: the astronaut)")
    parser.add_argument("--face", type=int, default=800, help="side of the face's crop in pixels (800)")
    parser.add_argument("--checkpoint", help="face model (default: the one of sca-dm photo)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        _run(options, Path(folder))
    return 0


def enlarged(editor: PhotoEditor, source: Path, face: int, path: Path) -> None:
    """Write the portrait as a photo of CANVAS pixels in which the crop of the largest face has `face` pixels."""
    side = editor.open(source).faces[0].side
    with Image.open(source) as opened:
        portrait = opened.convert("RGB")
    scale = face / side
    size = round(scale * portrait.width), round(scale * portrait.height)
    canvas = portrait.resize(CANVAS, Image.Resampling.BICUBIC, reducing_gap=None)
    canvas.paste(portrait.resize(size, Image.Resampling.BICUBIC), ((CANVAS[0] - size[0]) // 2, 0))
    noise = np.random.default_rng(0).normal(0, NOISE, (CANVAS[1], CANVAS[0], 1))
    pixels = np.clip(np.asarray(canvas) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def gradient_energy(before: np.ndarray, after: np.ndarray, inside: np.ndarray) -> float:
    """Return the sum of squared lightness differences of neighbors inside a region, edited / original."""
    return _energy(after, inside) / _energy(before, inside)


def _energy(pixels: np.ndarray, inside: np.ndarray) -> float:
    lightness = ColorSpace.srgb().to_lab(pixels)[..., 0]
    steps = np.diff(lightness, axis=0)[:, :-1] ** 2 + np.diff(lightness, axis=1)[:-1] ** 2
    return float(steps[inside[:-1, :-1]].sum())


def _run(options: argparse.Namespace, folder: Path) -> None:
    chosen = {"checkpoint": options.checkpoint} if options.checkpoint else {}
    editor, seconds = timed(lambda: PhotoEditor.from_pretrained(device=options.device, **chosen))
    rows = [("load both networks", seconds)]
    path = folder / "photo.jpg"
    enlarged(editor, options.photo, options.face, path)

    def step(name: str, call: Callable[[], Any]) -> Any:
        result, took = timed(call)
        rows.append((name, took))
        return result

    photo: Photo = step("read, find, align", lambda: editor.open(path))
    step("parse", photo.labels)
    hair = step("hair to a color", lambda: photo.edit(color="auburn", regions=["hair"]))
    style = photo.null_style()
    step(
        f"hair to a random style, {DEFAULT_STEPS} steps",
        lambda: photo.edit(style=style, regions=["hair"], seed=0),
    )
    step("save as JPEG", lambda: hair.save(folder / "edited.jpg"))
    print(
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"face crop {photo.faces[0].side:.0f} pixels, model {editor.pipe.fingerprint}"
    )
    print("| part | seconds |\n| --- | ---: |")
    for name, took in rows:
        print(f"| {name} | {took:.2f} |")
    print(f"peak memory {peak_memory(editor.pipe.device) / 1e9:.2f} GB")
    _fidelity(photo)


def _fidelity(photo: Photo) -> None:
    """Print what edits change outside and inside their regions."""
    print(
        "| hair | bytes changed outside the matte | gradient energy inside | mean lightness, a, b | asked for |"
    )
    print("| --- | ---: | ---: | --- | --- |")
    for color in COLORS:
        print(_row(photo, color, photo.edit(color=color, regions=["hair"])))
    own = photo.edit(style=photo.style(), regions=["hair", "skin"], detail="keep", seed=0)
    error = np.square(own.pixels.astype(np.float64) - photo.file.pixels)[own.matte > 0].mean()
    psnr = 10 * np.log10(255**2 / error) if error else np.inf
    print(f"own style, detail kept: PSNR {psnr:.1f} dB inside hair and skin")


def _row(photo: Photo, color: str, edited: EditedPhoto) -> str:
    before, inside = photo.file.pixels, edited.matte > 0.999
    outside = int((edited.pixels != before)[edited.matte == 0].sum())
    mean = ColorSpace.srgb().to_lab(edited.pixels[inside]).mean(0)
    asked = " ".join(f"{value:.0f}" for value in lab_of(color))
    return (
        f"| {color} | {outside} | {gradient_energy(before, edited.pixels, inside):.2f} "
        f"| {' '.join(f'{value:.0f}' for value in mean)} | {asked} |"
    )


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call and its seconds."""
    started = time.perf_counter()
    return call(), time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
