"""Configs with one strange value, by key: of a training, and beside weights."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

import main
from ldm.pipeline import FacePipeline
from tests import small
from tests.fuzz.changes import changed_value
from tests.fuzz.oracle import Case

FACES = "ldm.data.synthetic.dataset.SyntheticFaces"
REST: dict[str, Any] = {
    "data": {
        "target": "main.DataModuleFromConfig",
        "params": {
            "batch_size": 2,
            "num_workers": 0,
            "train": {"target": FACES, "params": {"size": 16, "length": 4, "seed": 0}},
            "validation": {"target": FACES, "params": {"size": 16, "length": 2, "seed": 1}},
        },
    },
    "lightning": {
        "trainer": {
            "max_steps": 1,
            "max_epochs": 1,
            "val_check_interval": 1,
            "check_val_every_n_epoch": 1,
            "limit_train_batches": 2,
            "limit_val_batches": 1,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "accumulate_grad_batches": 1,
            "accelerator": "cpu",
            "devices": 1,
            "precision": "32-true",
        },
        "callbacks": {
            "image_logger": {
                "target": "main.ImageLogger",
                "params": {"batch_frequency": 1, "max_images": 2, "cell": 16, "increase_log_steps": False},
            }
        },
        "checkpoint": {"every_n_steps": 1, "every_n_minutes": 5.0, "monitor_mode": "min"},
        "progress": {"seconds": 1.0},
    },
    "seed": 3,
}
# Parameters that the small configs leave at their defaults.
OPTIONAL: dict[str, Any] = {
    "linear_start": 0.0015,
    "linear_end": 0.0195,
    "timesteps": 1000,
    "first_stage_key": "image",
    "parameterization": "v",
    "min_snr_gamma": 0.0,
    "zero_terminal_snr": False,
    "ema_decay": 0.99,
    "scale_factor": 1.0,
    "scale_by_std": False,
    "monitor": "val/loss_simple_ema",
    "anneal_steps": 10,
    "warmup_steps": 2,
    "channels_last": False,
    "cond_stage_trainable": True,
    "ckpt_path": None,
    "ignore_keys": None,
    "probability_of_region_discard": 0.1,
    "probability_of_mask_discard": 0.1,
    "attn_loss_weight": 0.0,
}
FIRST_STAGE_OPTIONAL: dict[str, Any] = {
    "image_key": "image",
    "monitor": "val/rec_loss",
    "codebook_reset_after": 1,
    "anneal_steps": 10,
    "ckpt_path": None,
}
FACTS = {
    "unet_config": {
        "dropout": 0.0,
        "norm_groups": 32,
        "spade_hidden": 16,
        "transformer_depth": 1,
        "style_grid": 1,
    },
}


def trainings() -> list[dict[str, Any]]:
    """Return the sound configs that are changed."""
    diffusion = small.diffusion(**OPTIONAL, unet=FACTS["unet_config"])
    return [
        {"model": model, **copy.deepcopy(REST)}
        for model in (diffusion, small.first_stage(**FIRST_STAGE_OPTIONAL))
    ]


def training_cases(folder: Path) -> Iterator[Case]:
    """Configs of main.py: a third is trained for a step, with validation and preview grid, the others dry runs."""
    sound = trainings()
    number = 0
    while True:
        rng = random.Random(f"training {number}")
        config, path, change = changed_value(rng, sound[number % 2])
        yield training_case(folder, number, config, path, change, "-t" if number % 3 == 0 else "--dry-run")
        number += 1


def training_case(
    folder: Path, number: int, config: Any, path: tuple[Any, ...], change: str, action: str
) -> Case:
    """Return a case of main.py."""
    file = folder / f"training_{number}.yaml"

    def call() -> int:
        file.write_text(yaml.safe_dump(config))
        try:
            return main.main(["-b", str(file), action, "--logdir", str(folder / "runs")])
        finally:
            file.unlink()

    return Case(f"{action} {change}", call, names_of(path, file))


def names_of(path: tuple[Any, ...], file: Path) -> tuple[str, ...]:
    """Return what an error about the value at `path` may name: its key, or one beside which it makes no sense."""
    keys = [key for key in path if isinstance(key, str) and key not in ("params", "target")]
    return (*keys[-1:], file.name)


def weights_cases(folder: Path) -> Iterator[Case]:
    """Configs in the folder of a model, and in the metadata of a safetensors file."""
    model = small.diffusion(use_ema=False, **OPTIONAL)
    state = small.sensitive(model).state_dict()
    sound = {"model": model, "data": copy.deepcopy(REST["data"])}
    number = 0
    while True:
        rng = random.Random(f"config beside weights {number}")
        config, path, change = changed_value(rng, sound)
        yield weights_case(folder, number, state, config, path, change)
        number += 1


def weights_case(
    folder: Path, number: int, state: Any, config: Any, path: tuple[Any, ...], change: str
) -> Case:
    """Return a case of FacePipeline.from_pretrained."""
    inside = number % 2 == 0
    place = folder / f"weights_{number}"
    file = place / "model.safetensors"

    def call() -> None:
        place.mkdir(exist_ok=True)
        metadata = None
        if inside:
            metadata = {"config": json.dumps(config, default=str)}
        else:
            (place / "config.yaml").write_text(yaml.safe_dump(config))
        save_file(state, file, metadata)
        try:
            FacePipeline.from_pretrained(place, device="cpu")
        finally:
            for part in place.iterdir():
                part.unlink()
            place.rmdir()

    return Case(f"beside weights: {change}", call, (str(place),))
