"""Part of `make gpu`: a minute of scripts/train_faces.py, with its own images per second and its losses."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldm.training.metrics_csv import read_rows
from scripts.gpu.report import PartOptions, Row, part_options

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "data" / "faces"
MOST_PHOTOS = 5000  # more take longer to encode than to train on for a minute
DRAWN = "ldm.data.synthetic.dataset.SyntheticFaces"
START_AND_END = 12.0  # seconds outside of --minutes: to start Python, and to export the weights
MINUTES = 1.4  # of everything, so that training takes about one
SMALL = (  # in which a dry run trains for three seconds
    *("model.params.image_size=8", "model.params.unet_config.params.image_size=8"),
    *(
        "model.params.unet_config.params.model_channels=32",
        "model.params.unet_config.params.channel_mult=[1]",
    ),
    "model.params.unet_config.params.attention_resolutions=[1]",
    "model.params.first_stage_config.params.ddconfig.resolution=64",
    *("lightning.trainer.max_time={seconds: 3}", "lightning.trainer.log_every_n_steps=1"),
    "lightning.trainer.accelerator=cpu",
    "lightning.callbacks.image_logger.params.disabled=true",
)


def main(arguments: list[str] | None = None) -> int:
    """Train; return 1 if it failed or was not reached."""
    options = part_options(__doc__, arguments)
    return options.report().run(
        [Row("faces-256: a minute of training", lambda: train(options), 2.0 if options.dry_run else 45.0)]
    )


def train(options: PartOptions) -> dict[str, Any]:
    """Train from random weights and return images per second, and the losses at the start and the end.

    Raises:
        RuntimeError: train_faces.py failed.
    """
    minutes = 10.0 if options.dry_run else min(MINUTES, (options.until - time.time() - START_AND_END) / 60)
    batch = 2 if options.dry_run else 64
    data, overrides = data_overrides(options.dry_run)
    with tempfile.TemporaryDirectory() as folder:
        out, latents = Path(folder) / "faces", Path(folder) / "latents"
        words = {"--minutes": f"{minutes:.2f}", "--out": out, "--latents": latents, "--warmup": 50}
        command = [
            sys.executable,
            "scripts/train_faces.py",
            *(str(w) for pair in words.items() for w in pair),
        ]
        command += [f"data.params.batch_size={batch}", *overrides]
        lines = output_of(command)
        losses = [float(row["train/loss"]) for row in read_rows(out / "metrics.csv") if row.get("train/loss")]
    return {"data": data, "batch": batch, **progress(lines), **ends_of(losses, must_fall=not options.dry_run)}


def data_overrides(dry_run: bool) -> tuple[str, Sequence[str]]:
    """Return what is trained on, and the overrides for it: the photos in data/faces, or drawn faces without them."""
    photos = len(list((PHOTOS / "train" / "images").glob("*"))) if not dry_run else 0
    if 0 < photos <= MOST_PHOTOS and (PHOTOS / "val").is_dir():
        return f"{photos} photos", ()
    size, count = (64, 8) if dry_run else (256, 512)
    sets = {"train": (count, 0), "validation": (count // 16 or 2, 1)}
    drawn = [
        f"data.params.{split}={{target: {DRAWN}, params: {{size: {size}, length: {length}, seed: {seed}}}}}"
        for split, (length, seed) in sets.items()
    ]
    rarely = "lightning.trainer.check_val_every_n_epoch=50"  # epochs are short
    return f"{count} drawn faces", [*drawn, rarely, *(SMALL if dry_run else ())]


def output_of(command: Sequence[str]) -> list[str]:
    """Run a command, print its output as it comes, and return the lines."""
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    if process.returncode:
        last = next((line for line in reversed(lines) if line), "without output")
        raise RuntimeError(f"train_faces.py ended with status {process.returncode}: {last}")
    return lines


def progress(lines: Sequence[str]) -> dict[str, Any]:
    """Return the steps and the last images per second that a run has printed."""
    text = "\n".join(lines)
    rates, steps = re.findall(r"([\d.]+) images/s", text), re.findall(r"trained (\d+) steps", text)
    return {
        "images_per_s": float(rates[-1]) if rates else None,
        "steps": int(steps[-1]) if steps else None,
    }


def ends_of(losses: Sequence[float], *, must_fall: bool = True, share: float = 0.1) -> dict[str, Any]:
    """Return the mean of the first and of the last tenth of the logged losses, which vary with the timesteps.

    With `must_fall`, it is an error that the loss did not fall, which a dry run of a few seconds cannot
    expect.
    """
    count = max(1, int(share * len(losses)))
    if not losses:
        return {"error": "train_faces.py has logged no losses"}
    first, last = sum(losses[:count]) / count, sum(losses[-count:]) / count
    found: dict[str, Any] = {"loss_at_start": first, "loss_at_end": last}
    if must_fall and not last < first:
        found["error"] = f"the loss did not fall in training: {first:.4g} at the start, {last:.4g} at the end"
    return found


if __name__ == "__main__":
    sys.exit(main())
