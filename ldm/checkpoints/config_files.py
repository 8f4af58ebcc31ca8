"""YAML and JSON from other people, bounded in size before anything is built from them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldm.checkpoints.file_type import special_file
from ldm.targets import ConfigError

MAX_FILE = 4_000_000  # bytes of a YAML; the published ones have 3,000
MAX_COST = 4_000_000  # characters and values with aliases and ${...} expanded
MAX_DEPTH = 64
INTEGERS = range(-(2**63), 2**64)  # what a seed, a size or a number of steps can be
MAX_SIZE = 16_384  # pixels

REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")  # ${data.params.size}

FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9_]+(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """YAML as OmegaConf reads it: plain values, 1e-4 is a number, a date is a string, duplicate keys are errors.

    In pure Python, because deep nesting overflows the C stack of libyaml.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (the name and form are PyYAML's)
        first: [
            (tag, found) for tag, found in resolvers if tag.rpartition(":")[2] not in ("timestamp", "float")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return a dictionary; raise ConstructorError for a duplicate key."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {twice!r}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: not JSON, nested too deeply, or an integer of more than 64 bits.
    """
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _integer(digits: str) -> int:
    if len(digits) > 20 or (number := int(digits)) not in INTEGERS:
        raise ValueError(f"the integer {digits[:20]}... has more than 64 bits")
    return number


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file as plain dictionaries and lists; `${...}` is not resolved.

    Raises:
        ConfigError: missing, not a regular file, not YAML, larger than MAX_FILE, or beyond `check_extent`.
    """
    path = Path(path)
    if (kind := special_file(path)) is not None:
        raise ConfigError(f"{path} is {kind}, expected a YAML file")
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    if (size := path.stat().st_size) > MAX_FILE:
        raise ConfigError(f"{path}: a config must have at most {MAX_FILE:,} bytes, got {size:,}")
    try:
        read = yaml.load(path.read_bytes(), Loader=_Loader)
    except RecursionError as error:
        raise ConfigError(f"{path} is not readable YAML: nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError, OSError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    check_extent(read, str(path))
    return read


def read_foreign_config(path: str | Path) -> dict[str, Any]:
    """Read a config that came with weights; only `${section.key}` is resolved.

    Raises:
        ConfigError: as `read_foreign_yaml`, or not a config, see `check_sections`.
    """
    return check_sections(read_foreign_yaml(path), str(path))


def read_foreign_yaml(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a YAML of others; only `${section.key}` is resolved.

    Raises:
        ConfigError: as `read_yaml`; not a mapping; or other interpolations such as `${oc.env:HOME}`.
    """
    read = read_yaml(path)
    if not isinstance(read, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got a {type(read).__name__}")
    _check_references(read, str(path))
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(read), resolve=True)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not a readable config ({' '.join(str(error).split())})") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def check_sections(config: Any, where: str) -> dict[str, Any]:
    """Check the size and the sections of a config that came with weights, and return it.

    Raises:
        ConfigError: not plain values; `data` is not `{params: {train: {params: {size: ...}}}}` as far as it
            is given.
    """
    if not isinstance(config, dict):
        raise ConfigError(f"{where}: expected `model: {{target, params}}`, got a {type(config).__name__}")
    check_extent(config, where)
    section: Any = config
    path = []
    for key in ("data", "params", "train", "params"):
        section = section.get(key)
        path.append(key)
        if section is None:
            break
        if not isinstance(section, Mapping):
            raise ConfigError(f"{where}: {'.'.join(path)} must be a mapping, got {section!r:.60}")
    size = section.get("size") if section else None
    sides = size if isinstance(size, list | tuple) and len(size) == 2 else [size]
    if size is not None and not all(type(side) is int and 1 <= side <= MAX_SIZE for side in sides):
        raise ConfigError(
            f"{where}: data.params.train.params.size must be one or two integers in [1, {MAX_SIZE:,}], "
            f"got {size!r:.60}"
        )
    return {str(key): value for key, value in config.items()}


def check_extent(config: Any, where: str) -> None:
    """Check that a config is bounded: depth, size with aliases and `${key}` expanded, and 64-bit integers.

    Raises:
        ConfigError: deeper than MAX_DEPTH, larger than MAX_COST, or a larger integer.
    """
    _Extent(config, where).of(config, 0)


class _Extent:
    """Size of a config with all aliases and references expanded; each part is computed once, and none is copied."""

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
            raise ConfigError(f"{self.where}: larger than {MAX_COST:,} values with its references expanded")
        if depth + height > MAX_DEPTH:
            raise ConfigError(f"{self.where}: nested more than {MAX_DEPTH} deep")
        return cost, height

    def _items(self, value: Any, depth: int) -> tuple[int, int]:
        pairs = list(value.items() if isinstance(value, Mapping) else enumerate(value))
        for key, part in pairs:
            if type(part) is int and part not in INTEGERS:
                raise ConfigError(
                    f"{self.where}: {key!r:.60} must have at most 64 bits, got a larger integer"
                )
        parts = [*(value if isinstance(value, Mapping) else ()), *(part for _, part in pairs)]
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
                f"{where}: unsupported interpolation {value[:80]!r}; a config that comes with weights may only refer "
                "to its own keys, as in ${data.params.size}"
            )
    elif isinstance(value, Mapping | list):
        for part in [*value, *value.values()] if isinstance(value, Mapping) else value:
            _check_references(part, where)
