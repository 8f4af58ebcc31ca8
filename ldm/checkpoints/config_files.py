"""Configs as text: YAML and JSON that others may have written, bounded before anything is built from them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldm.targets import ConfigError

MAX_FILE = 4_000_000  # bytes of a YAML; the published ones have 3,000
MAX_COST = 4_000_000  # characters and values, once aliases and ${...} are written out
MAX_DEPTH = 64

REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")  # ${data.params.size}

FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9_]+(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """YAML as OmegaConf reads it: plain values, 1e-4 is a number, a date is a text, no key twice.

    In Python and not libyaml, whose recursion on the machine's stack ends the process.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (the name and form are PyYAML's)
        first: [
            (tag, found) for tag, found in resolvers if tag.rpartition(":")[2] not in ("timestamp", "float")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return a dictionary; raise ConstructorError for a key that comes twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice!r} comes twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is no JSON, or nested so deeply that Python cannot read it.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_yaml(path: str | Path) -> Any:
    """Return what a YAML file says, as plain dictionaries and lists, `${...}` as they stand.

    Raises:
        ConfigError: it is missing, no YAML, larger than MAX_FILE, or larger than MAX_COST once written out.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    if (size := path.stat().st_size) > MAX_FILE:
        raise ConfigError(f"{path}: {size:,} bytes are too many for a config; at most {MAX_FILE:,} are read")
    try:
        read = yaml.load(path.read_bytes(), Loader=_Loader)
    except RecursionError as error:
        raise ConfigError(f"{path} is not YAML that can be read: nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError, OSError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    check_extent(read, str(path))
    return read


def read_foreign_config(path: str | Path) -> dict[str, Any]:
    """Return the config that came with weights, `${section.key}` resolved and nothing else of OmegaConf.

    Raises:
        ConfigError: as `read_yaml`; it is no mapping; or asks for more than other keys, such as `${oc.env:HOME}`.
    """
    read = read_yaml(path)
    if not isinstance(read, dict):
        raise ConfigError(f"{path}: holds a {type(read).__name__}, expected `model: {{target, params}}`")
    _check_references(read, str(path))
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(read), resolve=True)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not a readable config ({' '.join(str(error).split())})") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def check_extent(config: Any, where: str) -> None:
    """Raise ConfigError if a config is deeper than MAX_DEPTH or larger than MAX_COST once it is written out.

    Values that are shared, and the targets of `${key}`, count each time that they occur, without being copied.
    """
    _Extent(config, where).of(config, 0)


class _Extent:
    """The size of a config with all its aliases and references written out, computed once for each part."""

    def __init__(self, root: Any, where: str) -> None:
        self.root, self.where = root, where
        self.known: dict[object, tuple[int, int]] = {}

    def of(self, value: Any, depth: int) -> tuple[int, int]:
        """Return the cost and the height of a value."""
        if depth > MAX_DEPTH:
            raise ConfigError(f"{self.where}: nested more than {MAX_DEPTH} deep, or contains itself")
        if not isinstance(value, Mapping | list | tuple | set | str):
            return 1, 0
        key: object = value if isinstance(value, str) else id(value)
        if key not in self.known:
            self.known[key] = (
                self._text(value, depth) if isinstance(value, str) else self._items(value, depth)
            )
        cost, height = self.known[key]
        if cost > MAX_COST:
            raise ConfigError(
                f"{self.where}: larger than {MAX_COST:,} values once its references are written out"
            )
        if depth + height > MAX_DEPTH:
            raise ConfigError(f"{self.where}: nested more than {MAX_DEPTH} deep")
        return cost, height

    def _items(self, value: Any, depth: int) -> tuple[int, int]:
        parts = [*value, *value.values()] if isinstance(value, Mapping) else list(value)
        extents = [self.of(part, depth + 1) for part in parts]
        return 1 + sum(cost for cost, _ in extents), 1 + max((height for _, height in extents), default=0)

    def _text(self, text: str, depth: int) -> tuple[int, int]:
        cost, height = 1 + len(text), 0
        for path in REFERENCE.findall(text):
            there = self.root
            for part in path.split("."):
                there = there.get(part) if isinstance(there, Mapping) else None
            referred, below = self.of(there, depth + 1)
            cost, height = cost + referred, max(height, below + 1)
        return cost, height


def _check_references(value: Any, where: str) -> None:
    """Raise ConfigError for `${...}` that is not the name of another key: it could read the environment."""
    if isinstance(value, str):
        if "${" in REFERENCE.sub("", value):
            raise ConfigError(
                f"{where}: {value[:80]!r} is more than the name of another key; a config that comes with weights "
                "may refer to its own keys alone, as in ${data.params.size}"
            )
    elif isinstance(value, Mapping | list):
        for part in [*value, *value.values()] if isinstance(value, Mapping) else value:
            _check_references(part, where)
