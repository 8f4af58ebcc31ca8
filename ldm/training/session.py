"""One call of main.py: config, model, data, run folder, Trainer, and how it ends."""

import logging
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.model_size import bytes_of, shapes_of, without_weight_files
from ldm.data.datamodule import DataError
from ldm.targets import ConfigError, check_config, foreign_targets, instantiate_from_config
from ldm.training.checkpointing import AtomicCheckpointIO, CheckpointWriter, batches_done, checkpoint_step
from ldm.training.config import (
    DEFAULT_SEED,
    found_again,
    load_config,
    parameters_of,
    to_yaml,
    trainer_options,
)
from ldm.training.finite import FiniteLossGuard, NotFiniteError
from ldm.training.heap import return_large_blocks
from ldm.training.learning_rate import scaled_learning_rate
from ldm.training.metrics_csv import MetricsCSV
from ldm.training.model_parts import parameter_table
from ldm.training.parallel import keep_averages_local, strategy_named
from ldm.training.preflight import (
    check_cached_latents,
    check_optimization,
    check_processes,
    check_resumed_weights,
    check_validation_interval,
    load_first_stage,
    warn_of_changes,
)
from ldm.training.progress import TrainingProgress
from ldm.training.run_folder import RunFolder
from ldm.training.seeding import StepSeeding
from ldm.training.stopping import Interrupted, StopRequest
from ldm.training.user_errors import UserError, error_sentence, explained

USER_ERROR, NOT_FINITE = 2, 3  # exit codes; an interrupted run ends with 128 + the signal's number

# Lightning's advice that is wrong here (the data module is resumable, `--resume` wants an existing folder), or that a
# person who trains from a YAML cannot follow.
UNHELPFUL_WARNINGS = (
    ".*does not have many workers.*",
    ".*your dataloader is not resumable.*",
    ".*smaller than the logging interval.*",
    ".*module.*in eval mode at the start of training.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ".*no `val_dataloader`.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*Total length of .* across ranks is zero.*",
    ".*treat `?pin_memory`?.*",
    ".*FSDP2-wrapped module .* returned a view tensor.*",  # nothing here changes one in place
)


@dataclass(frozen=True)
class Options:
    """What the command line asked for.

    Args:
        action: "train", "validate", "test" or "dry-run".
        base: YAML files, merged left to right.
        overrides: `dotted.key=value`, merged last.
        resume: a run folder, or a checkpoint in one.
        name: of the run folder, behind the timestamp; None takes the first YAML's.
        seed: of everything random; None takes the config's.
        logdir: where run folders lie.
        scale_lr: multiply the base learning rate; False keeps it.
        allow_targets: packages outside the project whose classes may be built of a config that is perhaps not the
            user's own. One that is given with `base` for training is, and needs none.
    """

    action: str
    base: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    resume: Path | None = None
    name: str | None = None
    seed: int | None = None
    logdir: Path = field(default=Path("runs"))
    scale_lr: bool = True
    allow_targets: tuple[str, ...] = ()


def run(options: Options) -> int:
    """Do what `options` ask for and return the exit code; errors of the user are one sentence on stderr."""
    _quieten()
    with StopRequest() as stop:
        session = _Session(options, stop)
        try:
            session.run()
        except Interrupted as error:
            print(f"main.py: stopped by {error}{session.way_back()}", file=sys.stderr)
            return 128 + error.signum
        except NotFiniteError as error:
            print(f"main.py: stopped: {error}{session.way_back()}", file=sys.stderr)
            return NOT_FINITE
        except DataError as error:
            way_back = session.way_back() if options.action == "train" else ""
            print(f"main.py: error: {error_sentence(error)}{way_back}", file=sys.stderr)
            return USER_ERROR
        except UserError as error:
            print(f"main.py: error: {error_sentence(error)}", file=sys.stderr)
            return USER_ERROR
    return 0


class _Session:
    """The steps of one run, in order."""

    def __init__(self, options: Options, stop: StopRequest) -> None:
        self.options, self.stop = options, stop
        self.folder: RunFolder | None = None

    def run(self) -> None:
        """Prepare, then train, validate or test."""
        with explained(ValueError, OSError, ImportError, TypeError, KeyError):
            try:
                self._prepare()
            except BaseException:
                if self.folder is not None and self.options.action == "train":
                    self.folder.discard()
                raise
        if self.options.action != "dry-run":
            with explained(CheckpointError, OSError):
                self._work()

    def _work(self) -> None:
        """Train, validate or test."""
        assert self.folder is not None
        start = {"datamodule": self.data, "ckpt_path": self.folder.checkpoint, "weights_only": True}
        if self.options.action == "train":
            self.trainer.fit(self.model, **start)
            if self.trainer.is_global_zero:
                print(
                    f"trained {batches_done(self.trainer)} steps; the results are in {self.folder.path}",
                    flush=True,
                )
        elif self.options.action == "validate":
            self.trainer.validate(self.model, **start)
        else:
            self.trainer.test(self.model, **start)

    def way_back(self) -> str:
        """Return how to go on after an interruption, as the end of a sentence."""
        if self.folder is None or not (self.folder.checkpoints / "last.ckpt").is_file():
            return ", before the first checkpoint"
        packages = sorted({target.partition(".")[0] for target in foreign_targets(self.config)})
        allowed = f" --allow-targets {','.join(packages)}" if packages else ""
        return (
            f"; go on from the last checkpoint with: python main.py --resume {self.folder.path} -t{allowed}"
        )

    def _prepare(self) -> None:
        """Do everything that can fail for a reason of the user's before the first step."""
        options = self.options
        resumed = RunFolder.resumed(options.resume) if options.resume else None
        files = [*([resumed.config] if resumed else []), *options.base]
        self.config = load_config(files, options.overrides, complete=options.action != "dry-run")
        if resumed is not None and (started := resumed.started_in()) is not None:
            self.config["data"] = found_again(self.config["data"], started)
        self._check_targets()
        self.seed = self.config.setdefault("seed", DEFAULT_SEED) if options.seed is None else options.seed
        self.config["seed"] = self.seed
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"seed is {self.seed!r}; wanted a whole number, 0 or more")
        trainer_settings = trainer_options(self.config, parameters_of(pl.Trainer.__init__))
        if options.action == "dry-run":
            model = shapes_of(self.config["model"])
            print(to_yaml(self.config) + "\n" + parameter_table(model), flush=True)
            return
        pl.seed_everything(self.seed, verbose=False)
        self._prepare_model(resumed)
        self._prepare_data()
        self.folder = resumed or self._new_folder()
        self.trainer = self._make_trainer(trainer_settings)
        formula = self._set_learning_rate()
        if options.action == "train":
            check_validation_interval(self.trainer, self.data.train_batches(self.trainer.world_size))
            check_optimization(self.trainer, self.model)
            check_processes(self.trainer, self.model)
            self._check_latents()
            if self.trainer.is_global_zero:
                self.folder.open(self.config, self.seed)
                print(self._summary(), formula, sep="\n", flush=True)

    def _check_targets(self) -> None:
        """Refuse classes of others in a config that may be somebody else's, and what no class would take."""
        options = self.options
        own = options.action == "train" and options.resume is None
        if not own and (foreign := foreign_targets(self.config, options.allow_targets)):
            packages = ",".join(sorted({target.partition(".")[0] for target in foreign}))
            raise ConfigError(
                f"the config names classes outside of this project: {', '.join(dict.fromkeys(foreign))}; building them "
                f"runs their code. If you trust them, add --allow-targets {packages}"
            )
        check_config(self.config["model"], "model")
        check_config(self.config["data"], "data")
        for name, callback in ((self.config.get("lightning") or {}).get("callbacks") or {}).items():
            if callback and "target" in callback:
                check_config(callback, f"lightning.callbacks.{name}")

    def _new_folder(self) -> RunFolder:
        """Make the folder of a new run; one that only evaluates writes nothing and needs none, but weights."""
        options = self.options
        if options.action == "train":
            return RunFolder.new(options.logdir, options.name or options.base[0].stem)
        if not (self.config["model"].get("params") or {}).get("ckpt_path"):
            raise ConfigError(
                f"--{options.action} needs trained weights; name a run with --resume, or a file with "
                "model.params.ckpt_path=FILE"
            )
        return RunFolder(options.logdir)

    def _prepare_model(self, resumed: RunFolder | None) -> None:
        """Build the model; the checkpoint that it resumes from must fit it."""
        # A run's own checkpoint holds every weight: the files that it once started from may be gone.
        section = without_weight_files(self.config["model"]) if resumed else self.config["model"]
        self.model = instantiate_from_config(section)
        if not isinstance(self.model, pl.LightningModule):
            raise ConfigError(
                f"model.target {self.config['model']['target']} is not a model that can be trained"
            )
        return_large_blocks(bytes_of(self.model))
        keep_averages_local(self.model)
        if resumed is not None and resumed.checkpoint is not None:
            check_resumed_weights(self.model, resumed.checkpoint)

    def _prepare_data(self) -> None:
        """Build the datasets; a missing one, or one that does not fill a batch, is an error now."""
        self.data = instantiate_from_config(self.config["data"])
        self.data.seed = self.seed
        split = {"train": "train", "validate": "validation", "test": "test"}[self.options.action]
        if split not in self.data.configs:
            raise ConfigError(f"data.params has no {split!r} dataset, which --{self.options.action} needs")
        self.data.setup()

    def _check_latents(self) -> None:
        """Hold cached latents against the model, which by now has the weights that it resumes from."""
        assert self.folder is not None
        first_stage, shape = (getattr(self.data, name, None) for name in ("first_stage", "latent_shape"))
        if first_stage is not None and self.folder.checkpoint is not None:
            load_first_stage(self.model, self.folder.checkpoint)
        check_cached_latents(self.model, first_stage, shape)

    def _make_trainer(self, settings: dict[str, Any]) -> pl.Trainer:
        """Build the Trainer with its loggers and callbacks."""
        assert self.folder is not None
        options: dict[str, Any] = {
            "accelerator": "auto",
            "log_every_n_steps": 10,
            "enable_model_summary": False,
        }
        options |= settings | {"strategy": strategy_named(settings.get("strategy", "auto"))}
        plugins = options.pop("plugins", None) or []
        options["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        options |= {"default_root_dir": str(self.folder.path), "use_distributed_sampler": False}
        try:
            if self.options.action != "train":
                options |= {
                    "logger": False,
                    "enable_checkpointing": False,
                    "callbacks": [StepSeeding(self.seed)],
                }
            else:
                options |= {"logger": self._loggers(), "callbacks": self._callbacks()}
            return pl.Trainer(**options)
        except TypeError as error:
            raise ConfigError(
                f"an option below `lightning` has a value of the wrong type: {error}"
            ) from error

    def _loggers(self) -> list[Logger]:
        """Return CSV and TensorBoard, without what lies beyond the checkpoint that a resume starts from."""
        assert self.folder is not None
        checkpoint, path = self.folder.checkpoint, str(self.folder.path)
        last_step = checkpoint_step(checkpoint) if checkpoint else None
        purge_step = None if last_step is None else last_step + 1
        return [
            MetricsCSV(self.folder.metrics, last_step),
            TensorBoardLogger(path, name="tensorboard", version="", purge_step=purge_step),
        ]

    def _callbacks(self) -> list[pl.Callback]:
        """Return our callbacks, and those of the YAML."""
        assert self.folder is not None
        settings = self.config.get("lightning") or {}
        configs = dict(settings.get("callbacks") or {})
        if not any(
            str((callback or {}).get("target")).endswith(".ImageLogger") for callback in configs.values()
        ):
            configs["image_logger"] = {"target": "main.ImageLogger", **(configs.get("image_logger") or {})}
        shown = (settings.get("trainer") or {}).get("enable_progress_bar") is not False
        return [
            StepSeeding(self.seed),
            FiniteLossGuard(),
            *([TrainingProgress(**(settings.get("progress") or {}))] if shown else []),
            *(instantiate_from_config(callback) for callback in configs.values() if callback),
            CheckpointWriter(self.folder.checkpoints, stop=self.stop, **(settings.get("checkpoint") or {})),
        ]

    def _set_learning_rate(self) -> str:
        """Set `model.learning_rate`, scaled by batch, devices and accumulation, or not; return the formula."""
        assert self.folder is not None
        section = self.config["model"]
        if "base_learning_rate" not in section:
            if self.options.action == "train":
                raise ConfigError("the config has no model.base_learning_rate; give one, such as 1.0e-6")
            return ""
        factors = {
            "batch size": self.data.batch_size,
            "devices": self.trainer.num_devices * self.trainer.num_nodes,
            "accumulate_grad_batches": self.trainer.accumulate_grad_batches,
        }
        scale = self.options.scale_lr and section.get("scale_lr", True)
        self.model.learning_rate, formula = scaled_learning_rate(
            section["base_learning_rate"], factors, scale
        )
        if self.folder.checkpoint is None:
            return formula
        if self.options.action == "train":
            warn_of_changes(load_config([self.folder.config]), self.config)
        return "learning rate: as in the checkpoint"

    def _summary(self) -> str:
        """Return what a person wants to know as the run starts."""
        assert self.folder is not None
        counts = ", ".join(f"{split} {len(dataset)}" for split, dataset in self.data.datasets.items())
        resumed = f", resumed from {self.folder.checkpoint.name}" if self.folder.checkpoint else ""
        return (
            f"run folder {self.folder.path}{resumed}\n{parameter_table(self.model)}\n"
            f"pictures: {counts}; seed {self.seed}; on {self.trainer.strategy.root_device.type}"
        )


def _quieten() -> None:
    """Silence what Lightning says that nobody at the command line can act on."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in UNHELPFUL_WARNINGS:
        warnings.filterwarnings("ignore", message)
