"""The config of a run: merged, and checked against everything that will be built from it."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from ldm.bundle import ROOT
from ldm.signatures import check_types, format_value, mismatch
from ldm.targets import ConfigError, check_config, foreign_targets
from ldm.training.checkpointing import CheckpointWriter
from ldm.training.config import DEFAULT_SEED, found_again, load_config, parameters_of, trainer_options
from ldm.training.options import Options
from ldm.training.progress import TrainingProgress
from ldm.training.run_folder import RunFolder

INFINITY = float("inf")
# Ranges of Trainer options beyond which Lightning fails late, in the first epoch or validation.
TRAINER_LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("max_epochs", "max_steps", "num_sanity_val_steps"), (-1, INFINITY)),
    **dict.fromkeys(("min_epochs", "min_steps", "gradient_clip_val", "log_every_n_steps"), (0, INFINITY)),
    **dict.fromkeys(("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes"), (1, INFINITY)),
    **dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches"), (0, INFINITY)),
    **dict.fromkeys(("overfit_batches", "reload_dataloaders_every_n_epochs"), (0, INFINITY)),
}
CHECKPOINT_LIMITS: dict[str, tuple[float, float]] = {"every_n_steps": (1, INFINITY)}
PROGRESS_LIMITS: dict[str, tuple[float, float]] = {"seconds": (0, INFINITY)}
SEEDS = 2**32  # of NumPy
IMAGE_LOGGER = "ldm.training.image_logger.ImageLogger"


def read_run_config(options: Options, resumed: RunFolder | None) -> dict[str, Any]:
    """Merge the YAML files and overrides of a run, and check every key and value; build nothing.

    Args:
        options: the command line.
        resumed: the run to resume, whose config comes first.

    Raises:
        ConfigError: names the key, the value and what is expected.
    """
    files = [*([resumed.config] if resumed else []), *options.base]
    config = load_config(files, options.overrides, complete=options.action != "dry-run")
    config["model"] = found_again(config["model"], ROOT)  # weights that come with the code
    if resumed is not None and (started := resumed.started_in()) is not None:
        config["data"] = found_again(config["data"], started)
    if not options.trusted and (foreign := foreign_targets(config, options.allow_targets)):
        packages = ",".join(sorted({target.partition(".")[0] for target in foreign.values()}))
        first = {target: where for where, target in reversed(foreign.items())}
        names = ", ".join(f"{target:.100} at {where}" for target, where in reversed(first.items()))
        raise ConfigError(
            f"the config names classes outside of this project: {names}; building them runs their code. If you trust "
            f"them, add --allow-targets {packages:.100}"
        )
    check_run_config(config)
    config["seed"] = config.get("seed", DEFAULT_SEED) if options.seed is None else options.seed
    if mismatch(int, config["seed"]) or not 0 <= config["seed"] < SEEDS:
        raise ConfigError(f"seed must be an integer in [0, 2**32), got {format_value(config['seed'])}")
    return config


def check_run_config(config: Mapping[str, Any]) -> None:
    """Check every section of a config against the signature of what is built from it.

    Raises:
        ConfigError: names the key, the value and what is expected.
    """
    check_config(config["model"], "model")
    check_config(config["data"], "data")
    for key, expected in (("base_learning_rate", float), ("scale_lr", bool)):
        value = config["model"].get(key)
        if key in config["model"] and mismatch(expected, value):
            raise ConfigError(f"model.{key} must be {mismatch(expected, value)}, got {format_value(value)}")
    settings = config.get("lightning") or {}
    for name, callback in callback_configs(config).items():
        check_config(callback, f"lightning.callbacks.{name}")
    trainer = trainer_options(config, parameters_of(pl.Trainer.__init__))
    own = {"precision": "auto"}.items()  # the Trainer does not know it: ldm.training.precision chooses
    checked = {key: value for key, value in trainer.items() if (key, value) not in own}
    check_types(pl.Trainer, checked, "lightning.trainer", TRAINER_LIMITS)
    check_types(CheckpointWriter, settings.get("checkpoint") or {}, "lightning.checkpoint", CHECKPOINT_LIMITS)
    check_types(TrainingProgress, settings.get("progress") or {}, "lightning.progress", PROGRESS_LIMITS)
    every = trainer.get("val_check_interval")
    if isinstance(every, int | float) and not every > 0:
        raise ConfigError(f"lightning.trainer.val_check_interval must be above 0, got {format_value(every)}")


def callback_configs(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the callbacks of `lightning.callbacks` by name, with an ImageLogger if there is none.

    Callbacks set to null are left out.

    Raises:
        ConfigError: an entry is not a mapping.
    """
    configs = dict((config.get("lightning") or {}).get("callbacks") or {})
    for name, callback in configs.items():
        if callback is not None and not isinstance(callback, Mapping):
            raise ConfigError(
                f"lightning.callbacks.{name} must be a mapping with `target` and `params`, got {format_value(callback)}"
            )
    if not any(str((callback or {}).get("target")).endswith(".ImageLogger") for callback in configs.values()):
        configs["image_logger"] = {"target": IMAGE_LOGGER, **(configs.get("image_logger") or {})}
    return {str(name): callback for name, callback in configs.items() if callback}
