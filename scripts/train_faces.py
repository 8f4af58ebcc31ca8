"""Train the networks of checkpoints/faces for a number of minutes, from the newest weights there are.

Caches the latents and keeps them in the GPU's memory; the learning rate follows the clock, so that it is zero
when the time ends. Starts from --start, or from what an earlier call left in --out, or from the weights in
checkpoints/faces that fit the config, or from random weights; the first line says from which. Leaves
model.safetensors, config.yaml, metrics.csv and the last preview grid in --out, the weights in parts of at
most 16 MiB:

  python scripts/train_faces.py --minutes 25 --out runs/faces data.params.batch_size=128
  python scripts/train_faces.py --minutes 55 --half-size --out runs/faces-128 --latents data/latents-128
  python scripts/train_faces.py --minutes 65 --start runs/faces-128 --out runs/faces
  python scripts/train_faces.py --minutes 10 --config configs/face-parser/faces.yaml --out runs/parser

Ctrl-C and SIGTERM export what has been learned so far to --out. The run stays in --out/unfinished-run, with
a checkpoint every 15 minutes: the same command continues it, also after a crash. --minutes may change, other
settings may not. Trains in bfloat16 where that is faster. Further arguments are overrides, as for main.py.
"""

import argparse
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from ldm.checkpoints.parts import PARTS, WEIGHTS, join_parts, split_file

if TYPE_CHECKING:
    from ldm.training.options import Options
    from ldm.training.unfinished_run import UnfinishedRun

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/latent-diffusion/faces-256.yaml"
PROGRAM = "train_faces.py"
SIGNALED = 128  # exit statuses above it say that a signal stopped the run
PART = 16 * 2**20  # bytes
SHARE = 0.97  # of --minutes, for preparation and training; the rest is for the export
# Settings that neither the config nor the command line names.
DEFAULTS: dict[str, Any] = {
    "lightning.trainer.precision": "auto",
    "lightning.checkpoint.every_n_minutes": 15,
    "lightning.checkpoint.every_n_steps": "null",
}
INITIAL = "model.params.ckpt_path"


def half_size(config: Mapping[str, Any]) -> list[str]:
    """Return the overrides that train the model of a config at half its resolution.

    The style encoder reads the images at the resolution at which it reads them in full size, if that is a
    reduced one.
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


def initial_weights(options: argparse.Namespace, config: Mapping[str, Any]) -> Path | None:
    """Return the folder or file of weights that a new run starts from, None for random ones."""
    from ldm.training.shipped_weights import shipped_weights  # imports that --help does not need

    if options.from_scratch or options.start:
        return options.start
    if named := (config["model"].get("params") or {}).get("ckpt_path"):
        return Path(named)
    if any(options.out.glob(f"{WEIGHTS}*")):
        return options.out
    return shipped_weights(config)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25, help="time for everything (default: 25)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--start",
        type=Path,
        help="folder of weights to start from (default: --out, or else checkpoints/faces, if they fit the config)",
    )
    start.add_argument("--from-scratch", action="store_true", help="start from random weights")
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
    """Run the command line and return the exit status."""
    parser = build_parser()
    options = parser.parse_intermixed_args(arguments)
    options.line = shlex.join(
        ["python", "scripts/train_faces.py", *(sys.argv[1:] if arguments is None else arguments)]
    )
    began = time.monotonic()
    from ldm.training.unfinished_run import run_kept_in  # imports that --help does not need
    from scripts.dataset_export import user_errors

    try:
        with user_errors(parser), run_kept_in(options.out) as folder:
            return train(options, folder, began)
    except KeyboardInterrupt:  # in the preparation or the export; the training handles it
        print(f"{PROGRAM}: stopped by SIGINT; continue with: {options.line}", file=sys.stderr)
        return SIGNALED + signal.SIGINT


def train(options: argparse.Namespace, folder: Path, began: float) -> int:
    """Start or continue the run in `folder`, export its weights, and return the exit status.

    Args:
        options: the command line.
        folder: folder for the run, removed once the run has ended.
        began: when the command started, by `time.monotonic`.
    """
    from ldm.training.session import run
    from ldm.training.unfinished_run import UnfinishedRun

    config, overrides = _read_config(options)
    unfinished = UnfinishedRun.find(folder)
    if unfinished is not None:
        call = _continue(options, config, unfinished)
        _cache_latents(options, config, overrides)
    else:
        start = initial_weights(options, config)
        print(f"new run from {start or 'random weights'}", flush=True)
        _cache_latents(options, config, overrides)
        call = _begin(options, config, overrides, start, folder, began)
    code = run(call)
    trained = UnfinishedRun.find(folder)
    if trained is not None and (code == 0 or code > SIGNALED):
        export(trained.path, options.out)
    if code == 0:
        shutil.rmtree(folder)
    return code


def export(run: Path, out: Path) -> None:
    """Write the weights of a run in parts, its metrics and its last preview grid to `out`."""
    from scripts import export_model

    if code := export_model.main([str(run), str(out)]):
        sys.exit(code)
    if (run / "metrics.csv").is_file():
        shutil.copy(run / "metrics.csv", out)
    for image in sorted((run / "images").glob("*.png"))[-1:]:
        shutil.copy(image, out / "preview.png")
    for part in out.glob(PARTS):
        part.unlink()
    for part in split_file(out / WEIGHTS, PART):
        print(part)


def _read_config(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Return the merged config, and the overrides in it."""
    from ldm.training.config import load_config

    overrides = list(options.overrides)
    config = load_config([options.config], overrides)
    if options.half_size:
        overrides = half_size(config) + overrides
        config = load_config([options.config], overrides)
    return config, overrides


def _cache_latents(options: argparse.Namespace, config: Mapping[str, Any], overrides: list[str]) -> None:
    """Compute the latents of a diffusion that are not in --latents yet; leave with the exit status of a failure."""
    from scripts import cache_latents

    if _has_latents(config):
        words = ["-b", str(options.config), "--out", str(options.latents), "--batch-size", "32", *overrides]
        if code := cache_latents.main(words):
            sys.exit(code)


def _has_latents(config: Mapping[str, Any]) -> bool:
    return "first_stage_config" in (config["model"].get("params") or {})


def _begin(
    options: argparse.Namespace,
    config: Mapping[str, Any],
    overrides: list[str],
    start: Path | None,
    folder: Path,
    began: float,
) -> "Options":
    """Record the command in `folder` and return the call of main.py that starts its run from `start`."""
    from ldm.training.config import flat
    from ldm.training.session import Options
    from ldm.training.unfinished_run import Command

    settings = flat(config)
    own = [f"{key}={value}" for key, value in DEFAULTS.items() if key not in settings]
    if start is not None:
        ready = start.is_file() or (start / "checkpoints").is_dir()  # a file, or the run folder of main.py
        weights = start if ready else join_parts(start, folder)
        own.append(f"{INITIAL}={weights}")
    elif settings.get(INITIAL):
        own.append(f"{INITIAL}=null")
    minutes = SHARE * options.minutes - (time.monotonic() - began) / 60
    length = (
        "lightning.trainer.max_steps=-1",
        "lightning.trainer.max_epochs=-1",
        "model.params.anneal_steps=0",
    )
    asked = settings | {"--warmup": options.warmup, "--start": str(start)}
    clock = _clock(options, minutes)
    Command(options.line, asked, options.minutes, minutes).write(folder)
    print(f"training for {minutes:.2f} minutes", flush=True)
    return Options(
        "train",
        (options.config,),
        (*overrides, *own, *_latents(options, config), *clock, *length),
        name="train",
        logdir=folder,
        program=PROGRAM,
        resume_command=options.line,
    )


def _continue(options: argparse.Namespace, config: Mapping[str, Any], run: "UnfinishedRun") -> "Options":
    """Return the call of main.py that continues a run.

    Raises:
        ConfigError: the command is another one than that of the run.
    """
    from ldm.targets import foreign_targets
    from ldm.training.config import flat
    from ldm.training.session import Options

    start = run.command.settings["--start"]
    named = str(options.start) if options.start or options.from_scratch else start
    run.check(flat(config) | {"--warmup": options.warmup, "--start": named})
    before, done = run.command, run.trained_minutes()
    minutes = before.training_minutes + SHARE * (options.minutes - before.minutes)
    print(
        f"resuming {run.path} after {run.steps()} steps, {done:.2f} of {minutes:.2f} minutes of training; "
        f"it started from {'random weights' if start == str(None) else start}",
        flush=True,
    )
    # The run has the settings of the command, so its classes may be built as those of a new run may.
    packages = {target.partition(".")[0] for target in foreign_targets(config).values()}
    return Options(
        "train",
        overrides=(*_latents(options, config), *_clock(options, minutes)),
        resume=run.path,
        allow_targets=tuple(packages),
        program=PROGRAM,
        resume_command=options.line,
    )


def _latents(options: argparse.Namespace, config: Mapping[str, Any]) -> list[str]:
    """Return the overrides that train on the cached latents, none if the model has none."""
    cached = [f"data.params.latents={options.latents}", "data.params.on_device=true"]
    return cached if _has_latents(config) else []


def _clock(options: argparse.Namespace, minutes: float) -> list[str]:
    """Return the overrides that end a run after minutes of training.

    Raises:
        ValueError: no time is left.
    """
    if minutes <= 0:
        raise ValueError(f"--minutes {options.minutes:g} is too short: preparation took longer")
    clock = {
        "target": "ldm.training.time_budget.TimeBudget",
        "params.minutes": f"{minutes:.3f}",
        "params.warmup_steps": options.warmup,
    }
    return [f"lightning.callbacks.time_budget.{key}={value}" for key, value in clock.items()]


if __name__ == "__main__":
    sys.exit(main())
