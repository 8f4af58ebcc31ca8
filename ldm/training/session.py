"""One call of main.py: the steps of a run in order, and its exit code."""

import sys
from typing import Any

import pytorch_lightning as pl

from ldm.checkpoints.model_size import bytes_of, shapes_of, without_weight_files
from ldm.data.datamodule import DataError
from ldm.targets import ConfigError, foreign_targets, instantiate_from_config
from ldm.training.config import load_config, to_yaml
from ldm.training.finite import NotFiniteError
from ldm.training.learning_rate import scaled_learning_rate
from ldm.training.lightning_internals import batches_done
from ldm.training.low_memory import return_large_blocks
from ldm.training.model_parts import parameter_table
from ldm.training.options import Options
from ldm.training.parallel import keep_averages_local
from ldm.training.preflight import (
    check_cached_latents,
    check_optimization,
    check_processes,
    check_resumed_weights,
    check_validation_interval,
    load_first_stage,
    warn_of_changes,
)
from ldm.training.run_config import read_run_config
from ldm.training.run_folder import RunFolder
from ldm.training.sections import sections_of
from ldm.training.stopping import Interrupted, StopRequest
from ldm.training.trainer import build_trainer, silence_lightning
from ldm.training.user_errors import UserError, error_sentence, explained

__all__ = ["Options", "run"]

USER_ERROR, NOT_FINITE = 2, 3  # exit codes; a signal ends with 128 + its number
SPLITS = {"train": "train", "validate": "validation", "test": "test"}


def run(options: Options) -> int:
    """Execute a command line and return the exit code; a user's error is one sentence on stderr."""
    silence_lightning()
    with StopRequest() as stop:
        session = Session(options, stop)
        try:
            session.run()
        except Interrupted as error:
            print(f"{options.program}: stopped by {error}{session.how_to_resume()}", file=sys.stderr)
            return 128 + error.signum
        except NotFiniteError as error:
            print(f"{options.program}: stopped: {error}{session.how_to_resume()}", file=sys.stderr)
            return NOT_FINITE
        except DataError as error:
            resume = session.how_to_resume() if options.action == "train" else ""
            print(f"{options.program}: error: {error_sentence(error)}{resume}", file=sys.stderr)
            return USER_ERROR
        except UserError as error:
            print(f"{options.program}: error: {error_sentence(error)}", file=sys.stderr)
            return USER_ERROR
    return 0


class Session:
    """The steps of one run, in order."""

    model: Any
    data: Any
    trainer: pl.Trainer

    def __init__(self, options: Options, stop: StopRequest) -> None:
        self.options, self.stop = options, stop
        self.config: dict[str, Any] = {}
        self.folder: RunFolder | None = None
        self.callbacks: dict[str, pl.Callback] = {}

    def run(self) -> None:
        """Prepare, then train, validate or test.

        Raises:
            UserError: a wrong value or file. DataError: an unreadable image.
            NotFiniteError: a loss that is NaN or infinite. Interrupted: a signal.
        """
        with explained():
            try:
                self._prepare()
            except BaseException:
                if self.folder is not None and self.options.action == "train":
                    self.folder.discard()
                raise
        if self.options.action != "dry-run":
            with explained(sections_of(self.config, self.model, self.data, self.trainer, self.callbacks)):
                self._work()

    def how_to_resume(self) -> str:
        """Return the command that continues an interrupted run, as the end of a sentence."""
        if self.folder is None or not (self.folder.checkpoints / "last.ckpt").is_file():
            return ", before the first checkpoint"
        if self.options.resume_command is not None:
            return f"; resume from the last checkpoint with: {self.options.resume_command}"
        packages = sorted({target.partition(".")[0] for target in foreign_targets(self.config).values()})
        allowed = f" --allow-targets {','.join(packages)}" if packages else ""
        command = "python main.py" if self.options.program == "main.py" else self.options.program
        return f"; resume from the last checkpoint with: {command} --resume {self.folder.path} -t{allowed}"

    def _prepare(self) -> None:
        """Perform every check before the first step."""
        options = self.options
        resumed = RunFolder.resumed(options.resume) if options.resume else None
        self.config = read_run_config(options, resumed)
        if options.action == "dry-run":
            model = shapes_of(self.config["model"])
            print(to_yaml(self.config) + "\n" + parameter_table(model), flush=True)
            return
        pl.seed_everything(self.config["seed"], verbose=False)
        self._prepare_model(resumed)
        self._prepare_data()
        self.folder = resumed or self._new_folder()
        self.trainer, self.callbacks = build_trainer(
            self.config, self.folder, options.action, self.stop, self.model
        )
        formula = self._set_learning_rate()
        if options.action == "train":
            check_validation_interval(self.trainer, self.data.train_batches(self.trainer.world_size))
            check_optimization(self.trainer, self.model)
            check_processes(self.trainer, self.model)
            self._check_latents()
            if self.trainer.is_global_zero:
                self.folder.open(self.config, self.config["seed"])
                print(self._summary(), formula, sep="\n", flush=True)

    def _prepare_model(self, resumed: RunFolder | None) -> None:
        """Build the model, and check that the checkpoint of a resumed run fits it."""
        # The run's own checkpoint has all weights: the files that it started from may be gone.
        section = without_weight_files(self.config["model"]) if resumed else self.config["model"]
        self.model = instantiate_from_config(section)
        if not isinstance(self.model, pl.LightningModule):
            raise ConfigError(f"model.target must be a LightningModule, got {self.config['model']['target']}")
        return_large_blocks(bytes_of(self.model))
        keep_averages_local(self.model)
        if resumed is not None and resumed.checkpoint is not None:
            check_resumed_weights(self.model, resumed.checkpoint)

    def _prepare_data(self) -> None:
        """Build the datasets, so that missing files are found now."""
        self.data = instantiate_from_config(self.config["data"])
        self.data.seed = self.config["seed"]
        split = SPLITS[self.options.action]
        if split not in self.data.configs:
            raise ConfigError(f"data.params has no {split!r} dataset, which --{self.options.action} needs")
        self.data.setup()

    def _new_folder(self) -> RunFolder:
        """Make the folder of a new run; validation and test of a weight file write nothing."""
        options = self.options
        if options.action == "train":
            return RunFolder.new(options.logdir, options.name or options.base[0].stem)
        if not (self.config["model"].get("params") or {}).get("ckpt_path"):
            raise ConfigError(
                f"--{options.action} needs trained weights; name a run with --resume, or a file with "
                "model.params.ckpt_path=FILE"
            )
        return RunFolder(options.logdir)

    def _set_learning_rate(self) -> str:
        """Set `model.learning_rate`, by default scaled by the global batch size; return the formula."""
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

    def _check_latents(self) -> None:
        """Compare cached latents with the model, whose first stage comes from the resumed checkpoint if any."""
        assert self.folder is not None
        first_stage, shape = (getattr(self.data, name, None) for name in ("first_stage", "latent_shape"))
        if first_stage is not None and self.folder.checkpoint is not None:
            load_first_stage(self.model, self.folder.checkpoint)
        check_cached_latents(self.model, first_stage, shape)

    def _summary(self) -> str:
        """Return the messages at the start of a run."""
        assert self.folder is not None
        counts = ", ".join(f"{split} {len(dataset)}" for split, dataset in self.data.datasets.items())
        resumed = f", resumed from {self.folder.checkpoint.name}" if self.folder.checkpoint else ""
        return (
            f"run folder {self.folder.path}{resumed}\n{parameter_table(self.model)}\n"
            f"images: {counts}; seed {self.config['seed']}; device {self.trainer.strategy.root_device.type}, "
            f"precision {self.trainer.precision}"
        )

    def _work(self) -> None:
        """Train, validate or test."""
        assert self.folder is not None
        start = {"datamodule": self.data, "ckpt_path": self.folder.checkpoint, "weights_only": True}
        if self.options.action == "train":
            self.trainer.fit(self.model, **start)
            if self.trainer.is_global_zero:
                steps = batches_done(self.trainer)
                print(f"trained {steps} steps; the results are in {self.folder.path}", flush=True)
        elif self.options.action == "validate":
            self.trainer.validate(self.model, **start)
        else:
            self.trainer.test(self.model, **start)
