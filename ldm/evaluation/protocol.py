"""Evaluation protocols: which faces, which edits and how to sample, read from YAML files (configs/evaluation)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldm.checkpoints.config_files import read_foreign_yaml
from ldm.closest_name import closest_name
from ldm.data.images import as_size
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
        random: variants of the task random, name -> regions with a random style; [] for all of the face.
        samples: images per label map in the tasks random and noise.
        sampling: options of the pipeline, see `ldm.pipeline.Sampling`; seeds of images count from its `seed`.

    Raises:
        ConfigError: a value is out of range or has the wrong type.
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
        for name in ("samples", "series", "first", "last"):
            number = getattr(self, name)
            optional = number is None and name in ("first", "last")
            if not optional and (not isinstance(number, int) or isinstance(number, bool)):
                raise ConfigError(f"{name} must be an integer, got {number!r}")
        if self.size is not None:
            try:
                object.__setattr__(self, "size", as_size(self.size))
            except (ValueError, TypeError) as error:
                raise ConfigError(
                    f"size must be a positive integer or [height, width], got {self.size!r}"
                ) from error
        if not isinstance(self.data, str):
            raise ConfigError(f"data must be a folder or {SYNTHETIC}, got {self.data!r}")
        _check_variants("swaps", self.swaps)
        _check_variants("random", self.random)
        if not isinstance(self.sampling, Mapping):
            raise ConfigError(
                f"sampling must be options such as {{solver: ddim, steps: 50}}, got {self.sampling!r}"
            )
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

    @property
    def resolved_sampling(self) -> dict[str, Any]:
        """The sampling options, with solver, steps, spacing and order as used."""
        return resolve_sampling(self.sampling)

    def as_dict(self) -> dict[str, Any]:
        """Return all settings as plain dicts and lists."""
        return dataclasses.asdict(self)


def resolve_sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return sampling options with solver, steps, spacing and order of unipc as used, also where they are defaults."""
    used = validate_options(**options)
    resolved = {**options, "solver": used.solver, "steps": used.used_steps, "spacing": used.used_spacing}
    return resolved if used.used_order is None else {**resolved, "order": used.used_order}


def _check_variants(task: str, variants: Any) -> None:
    """Raise ConfigError unless the variants of a task map names to lists of regions."""
    if not isinstance(variants, Mapping):
        raise ConfigError(
            f"{task} must map names to lists of regions, such as hair: [hair], got {variants!r}"
        )
    for name, regions in variants.items():
        listed = isinstance(regions, Sequence) and not isinstance(regions, str)
        if not listed or not all(isinstance(region, str) for region in regions):
            raise ConfigError(f"{task}: {name} must be a list of regions, such as [hair], got {regions!r}")


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
    empty: dict[str, Any] = {
        name: {} for name in ("swaps", "random", "sampling") if name in read and read[name] is None
    }
    settings: dict[str, Any] = {"name": path.stem, **read, **empty}
    settings |= {name: value for name, value in overrides.items() if value is not None and name != "sampling"}
    if options := overrides.get("sampling"):
        given = settings.get("sampling", {})
        settings["sampling"] = {**given, **options} if isinstance(given, Mapping) else given
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
