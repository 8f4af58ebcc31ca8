"""Show what the project does with the weights in checkpoints/faces: edit photos, interpolate, train a few steps.

Prints every command that it runs, so that you can run and change them. The photos are in the public domain
and part of the repository; nothing is downloaded.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHOTO, FACES = Path("assets/photos/astronaut.jpg"), Path("assets/photos/aligned")
WEIGHTS = Path("checkpoints/faces/diffusion")
STEPS = 8  # of training


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="output folder (runs/demo)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)  # the commands name files of the repository
    started = time.monotonic()
    out: Path = options.out
    shutil.rmtree(out, ignore_errors=True)  # photos that exist are not edited again
    out.mkdir(parents=True)
    device = ("--device", options.device)
    hair_and_lips = ("--regions", "hair,u_lip,l_lip")
    sample = "scripts/sample_sem.py"
    _run(sample, "faces", PHOTO, "-o", out / "faces.png", *device)
    colors = ("--color", "hair=auburn", "--color", "u_lip,l_lip=crimson")
    _run(sample, "photo", PHOTO, *colors, "-o", out / "recolored.jpg", *device)
    random = ("--style", "random", *hair_and_lips, "--seed", 1)
    _run(sample, "photo", PHOTO, *random, "-o", out / "random_style.jpg", *device)
    model = ("--checkpoint", WEIGHTS, "--data", FACES, *device)
    skin = ("--regions", "skin,nose,neck,l_ear,r_ear,u_lip,l_lip")
    _run(sample, "swap", "--style", "next", *skin, "--lock", *model, "--out", out / "swap")
    between = ("--names", "astronaut", "--style", "next", *skin, "--lock", "--frames", 5)
    _run(sample, "interpolate", *between, "--animate", "gif", *model, "--out", out / "interpolate")
    _run(
        "main.py",
        *("-b", "configs/latent-diffusion/faces-256.yaml", "-t", "--logdir", out, "--name", "training"),
        f"model.params.ckpt_path={WEIGHTS}",
        f"data.params.train.params.path={FACES}",
        f"data.params.validation.params.path={FACES}",
        "data.params.batch_size=2",
        f"lightning.trainer.max_steps={STEPS}",
        "lightning.trainer.check_val_every_n_epoch=null",
        f"lightning.trainer.val_check_interval={STEPS}",
        f"lightning.trainer.accelerator={options.device}",
    )
    print(f"\nDone in {time.monotonic() - started:.0f} s. The images:")
    for image in sorted(
        [*out.glob("*.png"), *out.glob("*.jpg"), *out.glob("*/overview.png"), *out.glob("*/*.gif")]
    ):
        print(f"  {image}")
    return 0


def _run(script: str, *arguments: object) -> None:
    """Print a command and run it; exit with its status if it fails."""
    words = [script, *map(str, arguments)]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, ROOT / script, *words[1:]]).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
