"""What is evaluated, and how: read from a YAML in configs/evaluation."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldm.checkpoints.config_files import read_foreign_config
from ldm.pipeline.options import sampling
from ldm.targets import ConfigError

TASKS = ("reconstruct", "swap", "random", "noise")
SYNTHETIC = "synthetic"  # as data: generated faces


@dataclass(frozen=True)
class Protocol:
    """An evaluation. Equal protocols on equal data and weights give equal reports.

    Attributes:
        name: as the report shows it.
        data: a folder with images/ and labels/, or "synthetic".
        first: number of the first face; None begins with the first that there is.
        last: number of the last face, itself included; for generated faces the count follows from both.
        series: seed of the generated faces; training on another leaves them unseen.
        size: (H, W) of the pictures; None for what the model was trained at.
        swaps: variants of the task swap: name -> regions that take another face's style; all of that face for [].
        random: variants of the task random: name -> regions whose style is left to chance.
        samples: pictures per mask in the tasks random and noise.
        sampling: options of the pipeline, see `ldm.pipeline.Sampling`; the seed of a picture is the first of them
            plus a number of its own.
    """

    name: str
    data: str
    first: int | None = None
    last: int | None = None
    series: int = 1
    size: tuple[int, int] | None = None
    swaps: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"whole": []})
    random: Mapping[str, Sequence[str]] = field(default_factory=dict)
    samples: int = 10
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"samples is {self.samples}; wanted 1 or more")
        if self.data == SYNTHETIC and (self.first is None or self.last is None):
            raise ConfigError("generated faces have no end; give first and last, such as 0 and 511")
        if self.first is not None and self.last is not None and self.last < self.first:
            raise ConfigError(f"first is {self.first}, last is {self.last}; wanted first <= last")
        if isinstance(self.sampling.get("seed", 0), list):
            raise ConfigError("sampling.seed is a list; wanted the one number that all seeds count from")
        sampling(**self.sampling)

    def variants(self, task: str) -> dict[str, Sequence[str]]:
        """Return the variants of a task, each a row of the report: name -> regions."""
        return {"swap": dict(self.swaps), "random": dict(self.random)}.get(task, {task: []})

    def as_dict(self) -> dict[str, Any]:
        """Return all settings as plain data."""
        return dataclasses.asdict(self)


def load_protocol(preset: str | Path, folder: Path, overrides: Mapping[str, Any]) -> Protocol:
    """Read a protocol.

    Args:
        preset: a YAML's path, or the name of one in `folder`.
        folder: where the presets are.
        overrides: settings to replace; None leaves the preset's. Those of `sampling` replace single options.

    Raises:
        ConfigError: there is no such preset, or a setting that no protocol has, or a value that cannot be.
    """
    path = Path(preset)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{preset}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ConfigError(f"there is no protocol {preset}; there are {known}, or give a YAML of your own")
    read = read_foreign_config(path)
    settings: dict[str, Any] = {"name": path.stem, **read}
    overrides = {
        **overrides,
        "sampling": {**settings.get("sampling", {}), **(overrides.get("sampling") or {})},
    }
    settings |= {name: value for name, value in overrides.items() if value is not None}
    known_names = [part.name for part in dataclasses.fields(Protocol)]
    for name in settings:
        if name not in known_names:
            near = difflib.get_close_matches(str(name), known_names, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{path}: unknown setting {name!r}; did you mean {near}?")
    if settings.get("data", "???") == "???":
        raise ConfigError(f"{path}: names no data; give a folder with images/ and labels/ by --data")
    try:
        return Protocol(**settings)
    except TypeError as error:
        raise ConfigError(f"{path}: a setting is missing or of the wrong kind ({error})") from error
