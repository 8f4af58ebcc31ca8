"""Which section of the config an object of a run was built from."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl

# Attributes of a model, fixed by checkpoints, and the parameter that each is built from.
NETWORKS = {
    "first_stage_model": "first_stage_config",
    "model": "unet_config",
    "cond_stage_model": "cond_stage_config",
    "loss": "lossconfig",
}
Section = tuple[str, Mapping[str, Any]]


def sections_of(
    config: Mapping[str, Any],
    model: pl.LightningModule,
    data: Any,
    trainer: pl.Trainer,
    callbacks: Mapping[str, pl.Callback],
) -> dict[int, Section]:
    """Return path and values of a section of the config by the id of each object that was built from it."""
    lightning = config.get("lightning") or {}
    pairs: list[tuple[Any, Section]] = [
        (data, _params("data", config["data"])),
        *(
            (callback, _params(f"lightning.callbacks.{name}", (lightning.get("callbacks") or {}).get(name)))
            for name, callback in callbacks.items()
        ),
        *_of_model(config["model"], model),
        *(
            (dataset, _params(f"data.params.{split}", data.configs.get(split)))
            for split, dataset in getattr(data, "datasets", {}).items()
        ),
    ]
    settings = ("lightning.trainer", lightning.get("trainer") or {})
    pairs += [(part, settings) for part in (trainer, trainer.fit_loop, trainer.fit_loop.epoch_loop)]
    return {id(built): section for built, section in pairs}


def _of_model(section: Mapping[str, Any], model: pl.LightningModule) -> Iterator[tuple[Any, Section]]:
    """Yield every module of a model with its section; the innermost comes last."""
    path, params = _params("model", section)
    for name, module in model.named_modules():
        key = NETWORKS.get(name.partition(".")[0])
        inner = params.get(key) if key else None
        yield module, _params(f"{path}.{key}", inner) if isinstance(inner, Mapping) else (path, params)


def _params(path: str, section: Any) -> Section:
    return f"{path}.params", (section or {}).get("params") or {}
