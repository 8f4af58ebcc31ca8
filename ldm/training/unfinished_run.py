"""A run that has not ended yet: the command that started it continues it, another one is refused."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.atomic_files import write_text
from ldm.targets import ConfigError
from ldm.training.checkpointing import load_saved

NAME = "unfinished-run"
RECORD = "command.json"


@dataclass(frozen=True)
class Command:
    """A command that trains for a given time.

    Args:
        line: as typed, for messages.
        settings: everything that must stay the same until the run ends, by name.
        minutes: time for everything.
        training_minutes: the part of it that is left for training after the preparation.
    """

    line: str
    settings: Mapping[str, Any]
    minutes: float
    training_minutes: float

    def write(self, folder: Path) -> None:
        """Record the command in the folder of its run."""
        write_text(folder / RECORD, json.dumps(vars(self), indent=1, default=str) + "\n")


@dataclass(frozen=True)
class UnfinishedRun:
    """A run with a checkpoint, and the command that started it.

    Args:
        path: run folder.
        command: the command.
    """

    path: Path
    command: Command

    @classmethod
    def find(cls, folder: Path) -> "UnfinishedRun | None":
        """Return the run in `folder`, None if there is none with a checkpoint.

        Raises:
            ConfigError: its command is not recorded.
        """
        checkpoint = next(folder.glob("*/checkpoints/last.ckpt"), None)
        if checkpoint is None:
            return None
        try:
            command = Command(**json.loads((folder / RECORD).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{folder / RECORD} cannot be read ({error}); delete {folder} to start a new run"
            ) from error
        return cls(checkpoint.parents[1], command)

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    def steps(self) -> int:
        """Return the number of optimizer steps until the last checkpoint."""
        return load_saved(self.checkpoint, mmap=True)["global_step"]

    def trained_minutes(self) -> float:
        """Return the minutes of training until the last checkpoint, by the run's TimeBudget."""
        return load_saved(self.checkpoint, mmap=True)["callbacks"]["TimeBudget"]["seconds"] / 60

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError unless a command has the settings of this run."""
        before = self.command.settings
        changed = sorted(
            key for key in {*before, *settings} if before.get(key, NAME) != settings.get(key, NAME)
        )
        if not changed:
            return
        first = changed[0]
        values = (repr(values[first]) if first in values else "not set" for values in (before, settings))
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ConfigError(
            f"{self.path.parent} holds an unfinished run with other settings ({first} is {' there, and '.join(values)} "
            f"in this command{more}); continue it with: {self.command.line}; or delete the folder, or use another --out"
        )


@contextmanager
def run_kept_in(out: Path) -> Iterator[Path]:
    """Yield the folder of the run in `out` for this process alone; afterwards it is there if the run can continue.

    Raises:
        ConfigError: another process trains in `out`.
    """
    folder = out / NAME
    with _locked(out):
        try:
            if UnfinishedRun.find(folder) is None:  # perhaps one that was killed before its first checkpoint
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            yield folder
        finally:
            if not any(folder.glob("*/checkpoints/last.ckpt")):
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                out.rmdir()  # only an empty one


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make a folder and lock it until the process ends or the context does."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another process trains in {folder}; wait for its end, or use another --out"
        ) from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(descriptor)
