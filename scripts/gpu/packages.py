"""Packages that `make gpu` needs: which are missing, and their installation from wheels without internet."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / ".whl"
INSTALLED = ROOT / "build" / "gpu-packages"
NEEDED = {  # module: name of its package
    "torch": "torch",
    "pytorch_lightning": "pytorch-lightning",
    "torchmetrics": "torchmetrics",
    "tensorboard": "tensorboard",
    "einops": "einops",
    "omegaconf": "omegaconf",
    "yaml": "PyYAML",
    "numpy": "numpy",
    "PIL": "pillow",
    "safetensors": "safetensors",
    "tqdm": "tqdm",
    "pytest": "pytest",
}


class PackageError(RuntimeError):
    """Packages are missing; the message is one sentence with their names and what to do."""


def missing(needed: Mapping[str, str] = NEEDED) -> list[str]:
    """Return the names of the packages that cannot be imported."""
    importlib.invalidate_caches()
    return [package for module, package in needed.items() if find_spec(module) is None]


def provide(needed: Mapping[str, str] = NEEDED, wheels: Path = WHEELS, into: Path = INSTALLED) -> Path | None:
    """Make every package importable, if necessary from the wheels in a folder.

    Returns:
        The folder that the wheels were installed into, for PYTHONPATH of other processes; None if none were
        needed.

    Raises:
        PackageError: a package is missing and has no wheel, or pip failed.
    """
    if not (absent := missing(needed)):
        return None
    sys.path.insert(0, str(into))
    if absent := missing(needed):  # not installed by an earlier call either
        if files := sorted(wheels.glob("*.whl")):
            _install(files, into)
            absent = missing(needed)
        if absent:
            names, found = " ".join(absent), f"found {len(files)} wheels" if files else "found no wheels"
            raise PackageError(
                f"missing packages: {names}; {found} in {wheels}; install them, or where there is internet run "
                f"`pip download --no-deps -d .whl {names}` and bring that folder along"
            )
    return into


def _install(files: list[Path], into: Path) -> None:
    """Install wheels; what they depend on is either there or one of them."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--upgrade", "--target", str(into), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise PackageError(
            f"pip could not install the wheels in {files[0].parent}: {reason[-1] if reason else 'no reason given'}"
        )
