"""Evaluation protocols: which faces, which edits and how to sample, read from YAML files (configs/evaluation)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldm.checkpoints.config_files import read_foreign_yaml
from ldm.closest_name import closest_name
from ldm.pipeline.options import validate_options
from ldm.targets import ConfigError

TASKS = ("reconstruct", "swap", "random", "noise")
SYNTHETIC = "synthetic"  # value of `data` for synthetic faces


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol; the report is a function of protocol, data and weights.

    Attributes:
        name: name in the report.
        data: folder with images/ and labels/, or "synthetic".
        first: number of the first face; None for the first available.
        last: number of the last face (inclusive); None for the last available. Required for synthetic faces.
        series: seed of the synthetic faces; use another one than in training.
        size: (H, W) of the images; None for the size of the model.
        swaps: variants of the task swap, name -> regions that take another face's style; [] for all regions.
        random: variants of the task random, name -> regions with a random style.
        samples: images per label map in the tasks random and noise.
        sampling: options of the pipeline, see `ldm.pipeline.Sampling`; seeds of images count from its `seed`.

    Raises:
        ConfigError: a value is out of range.
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
            raise ConfigError(f"samples must be at least 1, got {self.samples}")
        if self.data == SYNTHETIC and (self.first is None or self.last is None):
            raise ConfigError("data: synthetic needs first and last, such as first: 0 and last: 511")
        if self.first is not None and self.last is not None and self.last < self.first:
            raise ConfigError(f"last must be at least first, got first {self.first} and last {self.last}")
        if isinstance(self.sampling.get("seed", 0), list):
            raise ConfigError(
                "sampling.seed must be one integer (image seeds are counted up from it), got a list"
            )
        validate_options(**self.sampling)

    def variants(self, task: str) -> dict[str, Sequence[str]]:
        """Return the variants of a task (rows of the report): name -> regions."""
        return {"swap": dict(self.swaps), "random": dict(self.random)}.get(task, {task: []})

    def as_dict(self) -> dict[str, Any]:
        """Return all settings as plain dicts and lists."""
        return dataclasses.asdict(self)


def load_protocol(preset: str | Path, folder: Path, overrides: Mapping[str, Any]) -> Protocol:
    """Read a protocol.

    Args:
        preset: path of a YAML, or the name of one in `folder`.
        folder: folder of the presets.
        overrides: settings to replace; None keeps that of the preset. `sampling` replaces single options.

    Raises:
        ConfigError: unknown preset, unknown setting, or a value that is out of range.
    """
    path = Path(preset)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{preset}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ConfigError(f"unknown protocol {preset}; available: {known}, or the path of a YAML file")
    read = read_foreign_yaml(path)
    settings: dict[str, Any] = {"name": path.stem, **read}
    overrides = {
        **overrides,
        "sampling": {**settings.get("sampling", {}), **(overrides.get("sampling") or {})},
    }
    settings |= {name: value for name, value in overrides.items() if value is not None}
    known_names = [part.name for part in dataclasses.fields(Protocol)]
    for name in settings:
        if name not in known_names:
            raise ConfigError(
                f"{path}: unknown setting {name!r}; did you mean {closest_name(name, known_names)}?"
            )
    if settings.get("data", "???") == "???":
        raise ConfigError(f"{path}: data is missing; set it, or pass --data FOLDER with images/ and labels/")
    try:
        return Protocol(**settings)
    except TypeError as error:
        raise ConfigError(f"{path}: a setting is missing or has the wrong type ({error})") from error
