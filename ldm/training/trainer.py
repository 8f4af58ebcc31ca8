"""Lightning's Trainer with the loggers, callbacks and checkpoints of a run."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from ldm.targets import instantiate_from_config
from ldm.training.checkpointing import AtomicCheckpointIO, CheckpointWriter, saved_step
from ldm.training.finite import FiniteLossGuard
from ldm.training.metrics_csv import MetricsCSV
from ldm.training.parallel import strategy_named
from ldm.training.precision import trainer_precision
from ldm.training.progress import TrainingProgress
from ldm.training.run_config import callback_configs
from ldm.training.run_folder import RunFolder
from ldm.training.seeding import StepSeeding
from ldm.training.stopping import StopRequest

# Warnings that cannot be avoided: Lightning has no setting for them, and the advice they give is wrong here.
SILENCED = (
    ".*does not have many workers.*",  # the data module chooses the number by the cores and the data set
    ".*your dataloader is not resumable.*",  # it resumes by the epoch and batch of the checkpoint
    ".*smaller than the logging interval.*",  # steps are counted across epochs
    ".*module.*in eval mode at the start of training.*",  # the frozen first stage
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",  # a call of Lightning's own
    ".*no `val_dataloader`.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*Total length of .* across ranks is zero.*",
    ".*treat `?pin_memory`?.*",
    ".*You have overridden `on_before_batch_transfer`.*",  # the model's is the one to call
    ".*FSDP2-wrapped module .* returned a view tensor.*",  # nothing here changes one in place
)
LOG_EVERY = 10  # steps


def build_trainer(
    config: Mapping[str, Any], folder: RunFolder, action: str, stop: StopRequest, model: pl.LightningModule
) -> tuple[pl.Trainer, dict[str, pl.Callback]]:
    """Build the Trainer of a run, and return it with the callbacks of the config by name.

    Args:
        config: the checked config.
        folder: the run folder; only training writes to it.
        action: "train", "validate" or "test".
        stop: the pending signals of this process.
        model: the model, which `precision: auto` measures.
    """
    settings = (config.get("lightning") or {}).get("trainer") or {}
    plugins = settings.get("plugins") or []
    options = {
        "accelerator": "auto",
        "log_every_n_steps": LOG_EVERY if settings.get("max_steps", -1) not in range(10 * LOG_EVERY) else 1,
        "enable_model_summary": False,
        **settings,
    }
    options["strategy"] = strategy_named(settings.get("strategy", "auto"))
    batch_size = (config["data"].get("params") or {}).get("batch_size", 1)
    options["precision"] = trainer_precision(settings, model, batch_size)
    options["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
    options |= {"default_root_dir": str(folder.path), "use_distributed_sampler": False}
    seeding = StepSeeding(config["seed"])
    if action != "train":
        options |= {"logger": False, "enable_checkpointing": False, "callbacks": [seeding]}
        return pl.Trainer(**options), {}
    own = {name: instantiate_from_config(section) for name, section in callback_configs(config).items()}
    options["callbacks"] = [seeding, FiniteLossGuard(), *_progress(config), *own.values()]
    checkpoint = (config.get("lightning") or {}).get("checkpoint") or {}
    options["callbacks"].append(CheckpointWriter(folder.checkpoints, stop=stop, **checkpoint))
    return pl.Trainer(**options, logger=_loggers(folder)), own


def _loggers(folder: RunFolder) -> list[Logger]:
    """Return CSV and TensorBoard loggers; on resume, steps after the checkpoint are removed from both."""
    last_step = saved_step(folder.checkpoint) if folder.checkpoint else None
    purge_step = None if last_step is None else last_step + 1
    return [
        MetricsCSV(folder.metrics, last_step),
        TensorBoardLogger(str(folder.path), name="tensorboard", version="", purge_step=purge_step),
    ]


def _progress(config: Mapping[str, Any]) -> list[pl.Callback]:
    """Return the progress bar, unless `lightning.trainer.enable_progress_bar` is false."""
    settings = config.get("lightning") or {}
    if (settings.get("trainer") or {}).get("enable_progress_bar") is False:
        return []
    return [TrainingProgress(**(settings.get("progress") or {}))]


def silence_lightning() -> None:
    """Silence Lightning's messages below a warning, and the warnings in SILENCED."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in SILENCED:
        warnings.filterwarnings("ignore", message)
