"""The main job from start to end on generated faces: train both stages briefly, then sample unseen faces.

Prints every command it runs, so that they can be run, and changed, by hand.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="where everything goes (runs/demo)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)  # the commands name files of the repository
    started = time.monotonic()
    out: Path = options.out
    trainer = f"lightning.trainer.accelerator={options.device}"
    faces = out / "faces"
    _run("scripts/draw_faces.py", faces, "--count", 6, "--size", 32, "--seed", 1)
    first_stage = _train(out, "first_stage", "configs/autoencoder/synthetic-32.yaml", trainer)
    diffusion = _train(
        out,
        "diffusion",
        "configs/latent-diffusion/synthetic-32.yaml",
        trainer,
        f"model.params.first_stage_config.params.ckpt_path={first_stage}/checkpoints/last.ckpt",
    )
    sample = ["--checkpoint", diffusion, "--data", faces, "--steps", 25, "--device", options.device]
    _run("scripts/sample_sem.py", "reconstruct", *sample, "--out", out / "reconstruct")
    _run("scripts/sample_sem.py", "swap", "--style", "next", *sample, "--out", out / "swap")
    _run(
        "scripts/sample_sem.py",
        "swap",
        "--style",
        "next",
        "--regions",
        "hair",
        *sample,
        "--out",
        out / "swap_hair",
    )
    print(f"\nDone in {time.monotonic() - started:.0f} s. The pictures:")
    for picture in [*sorted(diffusion.glob("images/*.png"))[-1:], *sorted(out.glob("*/overview.png"))]:
        print(f"  {picture}")
    print(
        "A few minutes of training on small pictures show that everything works, not what the model can do."
    )
    return 0


def _train(out: Path, name: str, config: str, *overrides: str) -> Path:
    """Train one stage and return its run folder."""
    _run("main.py", "-b", config, "-t", "--logdir", out, "--name", name, *overrides)
    return max(out.glob(f"*_{name}"), key=lambda folder: folder.stat().st_mtime)


def _run(script: str, *arguments: object) -> None:
    """Print a command and run it; leave with its exit code if it fails."""
    words = [script, *map(str, arguments)]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, ROOT / script, *words[1:]]).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
