"""From YAML files and dotted overrides to one checked config."""

import inspect
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ldm.checkpoints.config_files import check_extent, read_yaml
from ldm.closest_name import closest_name
from ldm.targets import ConfigError, canonical

# Keys that a config may have, by the path of the mapping that holds them. Everything below a `params` is checked
# against the constructor that gets it, everything below `lightning.trainer` against pl.Trainer.
KNOWN_KEYS: dict[str, tuple[str, ...]] = {
    "": ("model", "data", "lightning", "seed"),
    "model": ("target", "params", "base_learning_rate", "scale_lr"),
    "data": ("target", "params"),
    "lightning": ("trainer", "callbacks", "checkpoint", "progress"),
    "lightning.checkpoint": ("every_n_steps", "every_n_minutes", "monitor_mode"),
    "lightning.progress": ("seconds",),
}
DEFAULT_SEED = 23

# Trainer options that main.py sets itself, and what to use instead.
RESERVED = {
    "logger": "CSV and TensorBoard are always written to the run folder",
    "callbacks": "name them under lightning.callbacks",
    "default_root_dir": "use --logdir",
    "enable_checkpointing": "checkpoints are always written; see lightning.checkpoint",
    "use_distributed_sampler": "the data module gives each device its share",
}
# Options of the Lightning 1.4 that the published recipes were made for.
RENAMED = {
    "gpus": "devices",
    "resume_from_checkpoint": "main.py's --resume",
    "progress_bar_refresh_rate": "lightning.progress",
    "weights_summary": "enable_model_summary",
    "amp_level": "precision",
    "replace_sampler_ddp": "use_distributed_sampler",
}


def load_config(
    paths: Sequence[str | Path], overrides: Iterable[str] = (), *, complete: bool = True
) -> dict[str, Any]:
    """Merge YAML files left to right, then `dotted.key=value` overrides, and check the result's keys.

    A `target` that names another class than before, and comes with `params`, drops the `params` of the
    former. Alone it keeps them: `model.target=mine.Model` usually names a subclass.

    Args:
        complete: raise if a value is still `???`.

    Raises:
        ConfigError: a file is missing or is no YAML mapping, an override is no `key=value`, or a key is
            unknown.
    """
    merged = OmegaConf.create({})
    try:
        for path in paths:
            merged = _merged(merged, _read_yaml(Path(path)))
        for override in overrides:
            if "=" not in override:
                raise ConfigError(
                    f"override {override!r}: expected dotted.key=value, such as data.params.batch_size=4"
                )
            merged = _merged(merged, OmegaConf.from_dotlist([override]))
        check_extent(OmegaConf.to_container(merged), "the config")
        config = OmegaConf.to_container(merged, resolve=True, throw_on_missing=complete)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise ConfigError(
            f"the config has no value for {key} (???); add {key}=VALUE to the command line"
        ) from error
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"the configs cannot be merged: {str(error).splitlines()[0]}") from error
    assert isinstance(config, dict)
    check_keys(config)
    return {str(key): value for key, value in config.items()}


def _merged(before: DictConfig, new: DictConfig) -> DictConfig:
    """Return `before` with the keys of `new`, where parameters of a class that is replaced do not stay."""
    old = OmegaConf.to_container(before)
    _drop_replaced(old, OmegaConf.to_container(new))
    merged = OmegaConf.create(old)
    assert isinstance(merged, DictConfig)
    merged.merge_with(new)
    return merged


def _drop_replaced(before: Any, new: Any) -> None:
    """Remove `params` from every mapping in `before` to which `new` gives another target with params of its own."""
    if not isinstance(before, dict) or not isinstance(new, Mapping):
        return
    target = new.get("target")
    if (
        target is not None
        and "params" in new
        and "target" in before
        and canonical(target) != canonical(before["target"])
    ):
        before.pop("params", None)
    for key, value in new.items():
        _drop_replaced(before.get(key), value)


def found_again(section: Any, directory: Path) -> Any:
    """Return a section of a config in which relative paths that are only below `directory` lead there.

    A run may be resumed from another directory than the one that it was started in.
    """
    if isinstance(section, Mapping):
        return {key: found_again(value, directory) for key, value in section.items()}
    if isinstance(section, list):
        return [found_again(value, directory) for value in section]
    if isinstance(section, str) and section and "\0" not in section and len(section) < 1000:
        there = directory / Path(section)
        if not Path(section).exists() and there.exists():
            return str(there)
    return section


def check_keys(config: Mapping[Any, Any]) -> None:
    """Raise ConfigError for an unknown or missing key outside of `params`, naming the nearest known one."""
    for path, known in KNOWN_KEYS.items():
        for key in _mapping_at(config, path):
            if key not in known:
                close = closest_name(_join(path, key), [_join(path, name) for name in known])
                raise ConfigError(f"unknown key {_join(path, key)!r}; did you mean {close}?")
    for section in ("model", "data"):
        if "target" not in _mapping_at(config, section):
            raise ConfigError(f"the config has no {section}.target; give a YAML that has one with -b")
    for name, callback in _mapping_at(config, "lightning.callbacks").items():
        for key in callback if isinstance(callback, Mapping) else ():
            if key not in ("target", "params"):
                raise ConfigError(
                    f"unknown key 'lightning.callbacks.{name}.{key}'; expected target and params"
                )


def trainer_options(config: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the options of `lightning.trainer`.

    Args:
        known: the options that the installed Lightning's Trainer takes.

    Raises:
        ConfigError: an option is unknown, or is one that main.py sets itself.
    """
    options = dict(_mapping_at(config, "lightning.trainer"))
    for key in options:
        if key in RESERVED:
            raise ConfigError(f"lightning.trainer.{key} cannot be set: {RESERVED[key]}")
        if key not in known:
            hint = RENAMED.get(key) or closest_name(key, known)
            raise ConfigError(f"lightning.trainer has no option {key!r}; did you mean {hint}?")
    return options


def parameters_of(function: Any) -> list[str]:
    """Return the names of the parameters of a function or constructor, without self."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def to_yaml(config: Mapping[str, Any]) -> str:
    """Return the config as YAML text that `load_config` reads back to the same."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config by dotted key, as they are after JSON."""
    return json.loads(json.dumps(_flat(config), default=str))


def _flat(section: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(section, Mapping) or not section:
        return {path: section}
    parts = [_flat(value, _join(path, key)) for key, value in section.items()]
    return {key: value for part in parts for key, value in part.items()}


def _read_yaml(path: Path) -> DictConfig:
    """Read one YAML file; raise ConfigError if it is missing or not a mapping."""
    if not path.is_file():
        beside = [str(found) for found in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        hint = f"; did you mean {closest_name(path, beside)}?" if beside else ""
        raise ConfigError(f"there is no file {path}{hint}")
    loaded = OmegaConf.create(read_yaml(path))
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path} must be a mapping with model:, data: and lightning:")
    return loaded


def _mapping_at(config: Mapping[Any, Any], path: str) -> Mapping[Any, Any]:
    """Return the mapping at a dotted path, empty if there is none; raise ConfigError if something else is there."""
    here: Any = config
    for key in path.split(".") if path else ():
        here = here.get(key)
        if here is None:
            return {}
        if not isinstance(here, Mapping):
            raise ConfigError(f"config key {path!r} is {here!r}; expected a mapping")
    return here


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
