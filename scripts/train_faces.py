"""Train the networks of checkpoints/faces for a number of minutes, from the newest weights there are.

Caches the latents and keeps them in the GPU's memory; the learning rate follows the clock, so that it is zero when the
time ends. Starts from --start, or from what an earlier call left in --out; otherwise from random weights. Leaves
model.safetensors, config.yaml, metrics.csv and the last preview grid in --out, the weights in parts of at most 16 MiB:

  python scripts/train_faces.py --minutes 25 --out runs/faces data.params.batch_size=128
  python scripts/train_faces.py --minutes 55 --half-size --out runs/faces-128 --latents data/latents-128
  python scripts/train_faces.py --minutes 65 --start runs/faces-128 --out runs/faces
  python scripts/train_faces.py --minutes 10 --config configs/face-parser/faces.yaml --out runs/parser

Further arguments are overrides, as for main.py.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for a checkout that is not installed
CONFIG = "configs/latent-diffusion/faces-256.yaml"
WEIGHTS = "model.safetensors"
PART = 16 * 2**20  # bytes


def split_file(path: Path, size: int) -> list[Path]:
    """Replace a file by parts of at most `size` bytes, NAME.000, NAME.001 and so on, and return their paths."""
    parts: list[Path] = []
    with path.open("rb") as file:
        while chunk := file.read(size):
            parts.append(path.with_name(f"{path.name}.{len(parts):03d}"))
            parts[-1].write_bytes(chunk)
    path.unlink()
    return parts


def join_parts(folder: Path, into: Path) -> Path:
    """Copy a folder that `split_file` has split, with its weights in one file, and return the copy.

    Raises:
        FileNotFoundError: there are neither weights nor parts of them, or a part is missing.
    """
    if (folder / WEIGHTS).is_file():
        return folder
    parts = sorted(folder.glob(f"{WEIGHTS}.[0-9][0-9][0-9]"))
    if not parts or [p.suffix for p in parts] != [f".{i:03d}" for i in range(len(parts))]:
        found = ", ".join(p.name for p in parts) or "none"
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}, and its parts are not complete, found {found}")
    with (into / WEIGHTS).open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    shutil.copy(folder / "config.yaml", into)
    return into


def half_size(config: Mapping[str, Any]) -> list[str]:
    """Return the overrides that train the model of a config at half its resolution.

    The style encoder reads the images at the resolution at which it reads them in full size, if that is a reduced one.
    """
    model, data = config["model"]["params"], config["data"]["params"]
    halved = {
        "model.params.image_size": model["image_size"],
        "model.params.unet_config.params.image_size": model["unet_config"]["params"]["image_size"],
        "model.params.first_stage_config.params.ddconfig.resolution": model["first_stage_config"]["params"][
            "ddconfig"
        ]["resolution"],
        **{
            f"data.params.{part}.params.size": data[part]["params"]["size"]
            for part in ("train", "validation")
        },
    }
    encoder = model["cond_stage_config"]["params"]
    if (factor := encoder.get("input_downsampling", 1)) > 1:
        halved["model.params.cond_stage_config.params.input_downsampling"] = factor
    return [f"{key}={value // 2}" for key, value in halved.items()]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25, help="time for everything (default: 25)")
    parser.add_argument(
        "--start", type=Path, help="folder of weights to start from (default: --out, if there are any)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/faces"), help="folder to write (default: runs/faces)"
    )
    parser.add_argument(
        "--config", type=Path, default=ROOT / CONFIG, help=f"YAML of the model (default: {CONFIG})"
    )
    parser.add_argument(
        "--latents", type=Path, default=Path("data/latents-256"), help="folder of cached latents"
    )
    parser.add_argument("--warmup", type=int, default=200, help="steps of linear warmup (default: 200)")
    parser.add_argument(
        "--half-size",
        action="store_true",
        help="train at half the config's resolution, a quarter of the time per image: a start for the full size",
    )
    parser.add_argument("overrides", nargs="*", help="dotted.key=value, as for main.py")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    began = time.monotonic()
    from ldm.training.config import load_config  # imports that --help does not need
    from scripts import cache_latents, export_model

    overrides = list(options.overrides)
    config = load_config([options.config], overrides)
    if options.half_size:
        overrides = half_size(config) + overrides
    if "first_stage_config" in config["model"]["params"]:
        words = ["-b", str(options.config), "--out", str(options.latents), "--batch-size", "32", *overrides]
        _succeed(cache_latents.main(words))
        overrides += [f"data.params.latents={options.latents}", "data.params.on_device=true"]
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        start = options.start or (options.out if any(options.out.glob(f"{WEIGHTS}*")) else None)
        if start is not None:
            try:
                overrides.append(f"model.params.ckpt_path={join_parts(start, runs)}")
            except FileNotFoundError as error:
                parser.error(str(error))
        minutes = 0.97 * options.minutes - (time.monotonic() - began) / 60
        if minutes <= 0:
            parser.error(f"--minutes {options.minutes:g} is too short: preparation took longer")
        print(f"training for {minutes:.2f} minutes", flush=True)
        run = _train(options.config, overrides, minutes, options.warmup, runs)
        _succeed(export_model.main([str(run), str(options.out)]))
        shutil.copy(run / "metrics.csv", options.out)
        for image in sorted((run / "images").glob("*.png"))[-1:]:
            shutil.copy(image, options.out / "preview.png")
    for part in options.out.glob(f"{WEIGHTS}.[0-9][0-9][0-9]"):
        part.unlink()
    for part in split_file(options.out / WEIGHTS, PART):
        print(part)
    return 0


def _train(config: Path, overrides: list[str], minutes: float, warmup: int, logdir: Path) -> Path:
    """Train as main.py does and return the run's folder; leave with its exit status if it fails."""
    from ldm.training.session import Options, run  # imports that --help does not need

    clock = {
        "target": "ldm.training.time_budget.TimeBudget",
        "params.minutes": f"{minutes:.3f}",
        "params.warmup_steps": warmup,
    }
    clocked = [f"lightning.callbacks.time_budget.{key}={value}" for key, value in clock.items()]
    length = (
        "lightning.trainer.max_steps=-1",
        "lightning.trainer.max_epochs=-1",
        "model.params.anneal_steps=0",
    )
    settings = (*overrides, *clocked, *length)
    _succeed(run(Options("train", (config,), settings, name="train", logdir=logdir)))
    (folder,) = logdir.glob("*_train")
    return folder


def _succeed(code: int) -> None:
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
