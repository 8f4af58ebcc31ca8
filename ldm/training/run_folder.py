"""The folder of one run: its config, the version of the code, and the paths of its results."""

import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ldm.atomic_files import PARTIAL, write_text
from ldm.targets import ConfigError
from ldm.training.config import to_yaml
from ldm.training.lightning_internals import is_first_process

# Processes that Lightning starts for further devices must not choose a folder of their own.
FOLDER_VARIABLE = "SCADM_RUN_FOLDER"
RECORDED_PACKAGES = ("torch", "pytorch-lightning", "numpy", "omegaconf", "pillow", "safetensors")


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run: config.yaml, versions.json, metrics.csv, tensorboard/, checkpoints/, images/.

    Args:
        path: the folder.
        checkpoint: the file to resume from; None in a new run.
        first_of_logdir: the folder above was made for it.
    """

    path: Path
    checkpoint: Path | None = None
    first_of_logdir: bool = False

    @property
    def config(self) -> Path:
        """The merged config."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One row per logged step."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """last.ckpt and best.ckpt."""
        return self.path / "checkpoints"

    @classmethod
    def new(cls, logdir: Path, name: str) -> "RunFolder":
        """Make `<logdir>/<timestamp>_<name>`, which is this run's alone also if another starts in the same second."""
        path = base = logdir / f"{datetime.now():%Y-%m-%dT%H-%M-%S}_{name}"
        if not is_first_process():  # the process of rank 0 makes and fills the folder
            return cls(Path(os.environ.get(FOLDER_VARIABLE, path)))
        first = not logdir.exists()
        for attempt in itertools.count(2):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not logdir.is_dir():
                    raise ConfigError(f"--logdir {logdir}: must be a folder, got a file") from None
                path = logdir / f"{base.name}_{attempt}"
            else:
                break
        return cls(path, first_of_logdir=first)

    def discard(self) -> None:
        """Remove a new run's folder if nothing is in it, and the one above where it was made for it."""
        with suppress(OSError):
            self.path.rmdir()
            if self.first_of_logdir:
                self.path.parent.rmdir()

    @classmethod
    def resumed(cls, run: Path) -> "RunFolder":
        """Find a run by its folder, or by one of its checkpoints.

        Raises:
            ConfigError: there is no such run, or it has no checkpoint.
        """
        if run.is_file():
            checkpoint = run.absolute()  # not resolved first: checkpoints/ may be a link to another disk
            folder = checkpoint.parent.parent
            if not (folder / "config.yaml").is_file():
                folder, checkpoint = run.resolve().parent.parent, run.resolve()
        else:
            folder, checkpoint = run, run / "checkpoints" / "last.ckpt"
        if not folder.is_dir() or not (folder / "config.yaml").is_file():
            raise ConfigError(
                f"--resume {run}: no run there; expected a folder with config.yaml and checkpoints/"
            )
        if not checkpoint.is_file():
            raise ConfigError(
                f"--resume {run}: it has no checkpoint {checkpoint}; the run ended before its first one"
            )
        return cls(folder, checkpoint)

    def started_in(self) -> Path | None:
        """Return the directory in which the run was started, None where it does not say."""
        try:
            started = json.loads((self.path / "versions.json").read_text())["starts"][0]["directory"]
            return Path(started)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def open(self, config: Mapping[str, Any], seed: int) -> None:
        """Make the folder, write the config, and add this start of the run to versions.json."""
        os.environ[FOLDER_VARIABLE] = str(self.path)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        (self.path / "images").mkdir(exist_ok=True)
        for leftover in self.checkpoints.glob(f".*{PARTIAL}"):
            leftover.unlink()
        write_text(self.config, to_yaml(config))
        versions = self.path / "versions.json"
        starts = json.loads(versions.read_text())["starts"] if versions.is_file() else []
        starts.append(
            {**describe_start(), "seed": seed, "resumed_from": self.checkpoint and self.checkpoint.name}
        )
        write_text(versions, json.dumps({"starts": starts}, indent=2) + "\n")


def describe_start() -> dict[str, Any]:
    """Return the information to reproduce this start: time, command line, versions, commit of the code."""
    packages: dict[str, str | None] = {}
    for name in RECORDED_PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "directory": str(Path.cwd()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **packages,
        **git_state(Path(__file__).parent),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """Return the commit of the code and whether files differ from it; both None where there is no git checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}
