"""Parts of a model and their parameter counts."""

import torch

# Attribute names in checkpoints and their descriptions.
PARTS = {"first_stage_model": "first stage", "model": "UNet", "cond_stage_model": "style encoder"}


def parameter_table(model: torch.nn.Module) -> str:
    """Return a table of the number of parameters of each part of a model."""

    def row(name: str, part: torch.nn.Module) -> tuple[str, int, int]:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
        return name, sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)

    parts = [row(PARTS.get(name, name), part) for name, part in model.named_children()]
    rows = [*(part for part in parts if part[1]), row("total", model)]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(
        f"{name:<{width}}  {count:>13,} parameters, {own:>13,} trained" for name, count, own in rows
    )
