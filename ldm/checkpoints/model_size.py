"""How large the model of a config would be, known before it is built."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ldm.checkpoints.free_memory import free_bytes
from ldm.targets import ConfigError, instantiate_from_config


def shapes_of(config: Mapping[str, Any]) -> Any:
    """Build the model of a config without memory: every tensor has its shape and no numbers; no weight file is read.

    Raises:
        ConfigError: the config builds nothing, or a model for which there is not enough memory.
    """
    with torch.device("meta"):
        model = instantiate_from_config(without_weight_files(config))
    if isinstance(model, nn.Module):
        size, free = bytes_of(model), free_bytes(torch.device("cpu"))
        if free is not None and size > free:
            raise ConfigError(
                f"this config describes a model of {size / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB of memory are "
                "free; make it narrower"
            )
    return model


WITHOUT = {
    "ckpt_path": None,
    "perceptual_network": None,
    "pretrained": False,
}  # what reads files -> what does not


def without_weight_files(config: Any) -> Any:
    """Return a model's config that starts from no file: to count parameters, none has to be there."""
    if isinstance(config, Mapping):
        return {key: WITHOUT.get(key, without_weight_files(value)) for key, value in config.items()}
    return [without_weight_files(value) for value in config] if isinstance(config, list) else config


def bytes_of(model: nn.Module) -> int:
    """Return how many bytes a model's parameters and buffers take."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
