"""What results depend on: device, torch and the code. Only results with the same identity are kept by --resume."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("ldm", "scripts", "tests", "configs")

Identity = dict[str, str]


def identity(device: str) -> Identity:
    """Return the name of a device ("cuda" or "cpu"), the version of torch and the revision of the code.

    Raises:
        RuntimeError: there is no CUDA device.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"torch {torch.__version__} finds no CUDA device; run it on a machine with a GPU, or add --dry-run to try "
            "every part in small on the CPU"
        )
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return {"device": name, "torch": torch.__version__, "commit": revision()}


def revision(root: Path = ROOT) -> str:
    """Return the git commit of the code, or a digest of it where files differ or there is no git checkout."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit and _git(root, "status", "--porcelain", "--untracked-files=no") == "":
        return commit
    digest = hashlib.sha256()
    for file in sorted(file for folder in CODE for file in (root / folder).rglob("*.*")):
        if file.suffix in (".py", ".yaml"):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return f"sources-{digest.hexdigest()[:16]}"


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def main(arguments: list[str] | None = None) -> int:
    """Print the identity as JSON, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="device (default: cuda)")
    try:
        print(json.dumps(identity(parser.parse_args(arguments).device)))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
