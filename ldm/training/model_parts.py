"""What a model consists of, before and after it is built."""

from collections.abc import Mapping
from typing import Any

import torch

# The attributes that checkpoints name, and what a person calls them.
PARTS = {"first_stage_model": "first stage", "model": "UNet", "cond_stage_model": "style encoder"}


def without_weight_files(config: Any) -> Any:
    """Return a model's config that starts from no file: to count parameters, none has to be there."""
    if isinstance(config, Mapping):
        return {
            key: None if key == "ckpt_path" else without_weight_files(value) for key, value in config.items()
        }
    return [without_weight_files(value) for value in config] if isinstance(config, list) else config


def bytes_of(model: torch.nn.Module) -> int:
    """Return how many bytes a model's parameters and buffers take."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def parameter_table(model: torch.nn.Module) -> str:
    """Return the number of parameters of each part of a model, as lines of text."""

    def row(name: str, part: torch.nn.Module) -> tuple[str, int, int]:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
        return name, sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)

    parts = [row(PARTS.get(name, name), part) for name, part in model.named_children()]
    rows = [*(part for part in parts if part[1]), row("total", model)]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(
        f"{name:<{width}}  {count:>13,} parameters, {own:>13,} trained" for name, count, own in rows
    )
