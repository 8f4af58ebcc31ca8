"""Post-hoc EMA: snapshots that allow choosing the EMA length after training (EDM2, arXiv 2312.02696, section 3)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytorch_lightning as pl
import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ldm.atomic_files import write_file
from ldm.checkpoints.errors import CheckpointError
from ldm.models.latent_networks import LatentNetworks
from ldm.modules.power_ema import PowerEMA, Profile, combination, combine
from ldm.targets import ConfigError
from ldm.training.finite import check_before_writing
from ldm.training.lightning_internals import ShardedStrategy

FORMAT = "sca-dm average 1"
PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class PosthocEMA(pl.Callback):
    """Track power-function EMAs of UNet and style encoder, and write snapshots to ema/ in the run folder.

    `scripts/export_model.py --ema-length` reconstructs any EMA length from them. The cost is two more copies
    of both networks on the device and in checkpoints, and two in half precision on disk per snapshot.

    Args:
        every_n_steps: optimizer steps between snapshots; some tens of snapshots per run are enough.
        sigma_rels: relative lengths of the tracked EMAs.
        precision: precision of the snapshots, float16, bfloat16 or float32.

    Raises:
        ValueError: an invalid value.
    """

    def __init__(
        self, every_n_steps: int, sigma_rels: Sequence[float] = (0.05, 0.1), precision: str = "float16"
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"PosthocEMA: every_n_steps must be at least 1, got {every_n_steps}")
        if precision not in PRECISIONS:
            raise ValueError(
                f"PosthocEMA: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
            )
        self.every_n_steps, self.sigma_rels = every_n_steps, tuple(sigma_rels)
        self.dtype = PRECISIONS[precision]
        # Validates the lengths now; names and shapes come with the model.
        self.averages = [PowerEMA({}, sigma_rel) for sigma_rel in self.sigma_rels]
        self.step = 0
        self._seen = self._written = 0
        self._resumed: dict[float, dict[str, Tensor]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and their number of steps."""
        return {"step": self.step, "averages": {a.sigma_rel: a.weights for a in self.averages}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the averages of the interrupted run; raise ConfigError if it tracked other lengths."""
        self.step, self._resumed = state_dict["step"], state_dict["averages"]
        if (before := set(self._resumed)) != set(self.sigma_rels):
            raise ConfigError(
                f"PosthocEMA: sigma_rels must be {sorted(before)} as in the resumed run, got {sorted(self.sigma_rels)}"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Initialize the averages, or copy those of a resumed run to the model's device."""
        if not isinstance(pl_module, LatentNetworks):
            raise ConfigError(f"PosthocEMA requires a diffusion model, got a {type(pl_module).__name__}")
        if isinstance(trainer.strategy, ShardedStrategy):
            raise ConfigError(
                "PosthocEMA does not support sharded weights (lightning.trainer.strategy=fsdp); remove one of them"
            )
        self._seen = trainer.global_step
        if not trainer.is_global_zero:
            return
        trained = _trained(pl_module)
        self.averages = [PowerEMA(trained, sigma_rel) for sigma_rel in self.sigma_rels]
        for average in self.averages if self._resumed else []:
            for name, tensor in self._resumed[average.sigma_rel].items():
                average.weights[name].copy_(tensor)
        self._resumed = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages once per optimizer step, and write a snapshot if it is due."""
        if trainer.global_step == self._seen:  # gradient accumulation without an update
            return
        self._seen, self.step = trainer.global_step, self.step + 1
        if trainer.is_global_zero:
            trained = _trained(pl_module)
            for average in self.averages:
                average.update(trained, self.step)
        if self.step % self.every_n_steps == 0:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the final snapshot, the reference step of the reconstruction."""
        if self.step > self._written:
            self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write all averages, atomically, in the first process; all check their weights, so that all stop."""
        check_before_writing(trainer, pl_module)
        self._written = self.step
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "ema"
        folder.mkdir(exist_ok=True)
        for average in self.averages:
            facts = {"format": FORMAT, "step": str(self.step), "sigma_rel": repr(average.sigma_rel)}
            data = save({name: w.to("cpu", self.dtype) for name, w in average.weights.items()}, facts)
            file = folder / f"step_{self.step:08}_sigma_{average.sigma_rel}.safetensors"
            write_file(file, partial(_put, data))


def averaged(run_folder: Path, sigma_rel: float) -> tuple[dict[str, Tensor], int]:
    """Reconstruct the EMA weights of a length; return them by their names in checkpoints, and their step.

    Raises:
        CheckpointError: the run has no snapshots, or one is damaged.
        ValueError: an invalid length.
    """
    files = sorted((run_folder / "ema").glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{run_folder}: no EMA snapshots in {run_folder / 'ema'}; train with the callback "
            "ldm.training.posthoc_ema.PosthocEMA, see configs/latent-diffusion/celebamask-hq.yaml"
        )
    kept = [_profile(file) for file in files]
    weights = combine((load_file(file) for file in files), combination(kept, sigma_rel))
    return weights, max(profile.step for profile in kept)


def _profile(file: Path) -> Profile:
    """Return the profile of a snapshot."""
    try:
        with safetensors.safe_open(file, "pt") as opened:
            facts = opened.metadata() or {}
        if facts.get("format") == FORMAT:
            return Profile(int(facts["step"]), float(facts["sigma_rel"]))
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file}: damaged ({error}); remove it, the other snapshots suffice") from error
    raise CheckpointError(f"{file}: not an EMA snapshot; remove it")


def _trained(model: pl.LightningModule) -> Mapping[str, Tensor]:
    """Return the trained parameters of UNet and style encoder, by their names in checkpoints."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _put(data: bytes, file: BinaryIO) -> None:
    file.write(data)
