"""What the model does, from start to end, with the weights in checkpoints/demo: edit faces, then train a few steps.

Prints every command it runs, so that they can be run, and changed, by hand. All faces are generated: no photo, no
download.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS, FACES = Path("checkpoints/demo"), Path("assets/faces")
STEPS = 8  # of training


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
    between = ("--names", "000010,000012,000041")
    tasks: dict[str, list[object]] = {
        "swap_hair": ["swap", "--style", "next", "--regions", "hair"],
        "random_hair": ["random", "--regions", "hair"],
        "interpolate": ["interpolate", *between, "--style", "next", "--frames", 7, "--animate", "gif"],
    }
    for name, task in tasks.items():
        given = ["--checkpoint", WEIGHTS, "--data", FACES, "--device", options.device]
        _run("scripts/sample_sem.py", *task, *given, "--out", out / name)
    _run(
        "main.py",
        *("-b", "configs/latent-diffusion/synthetic-64.yaml", "-t"),
        *("--logdir", out, "--name", "from_demo"),
        f"model.params.ckpt_path={WEIGHTS}",
        "model.params.first_stage_config.params.ckpt_path=null",
        f"lightning.trainer.max_steps={STEPS}",
        f"lightning.trainer.val_check_interval={STEPS}",
        "lightning.trainer.limit_val_batches=2",
        f"lightning.trainer.accelerator={options.device}",
    )
    print(f"\nDone in {time.monotonic() - started:.0f} s. The pictures:")
    for picture in [*sorted(out.glob("*/overview.png")), *sorted(out.glob("interpolate/*.gif"))[:1]]:
        print(f"  {picture}")
    return 0


def _run(script: str, *arguments: object) -> None:
    """Print a command and run it; leave with its exit code if it fails."""
    words = [script, *map(str, arguments)]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, ROOT / script, *words[1:]]).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
