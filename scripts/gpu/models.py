"""Models to measure, with random weights: one on the device at a time, in several layouts and precisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ldm.checkpoints.config_files import read_yaml
from ldm.models.diffusion import LatentDiffusion
from scripts.benchmarking import cached_batch, random_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "latent-diffusion"
PUBLISHED, FACES, TINY = "celebamask-hq", "faces-256", "synthetic-32"


class Loaded(NamedTuple):
    """A model on the device.

    Attributes:
        size: side of its images in pixels.
        clip: norm that its recipe clips gradients to; None for no clipping.
    """

    name: str
    model: LatentDiffusion
    size: int
    clip: float | None


class Models:
    """Models by the name of their config, built when they are needed.

    Args:
        device: device of the model that was asked for last.
        small: with a single level of the UNet, which torch.compile traces in seconds.
    """

    def __init__(self, device: torch.device, small: bool = False) -> None:
        self.device, self.small = device, small
        self._built: dict[str, Loaded] = {}

    def __call__(self, name: str) -> Loaded:
        """Return a model on the device; the others move to the CPU, so that peak memory is that of this one."""
        if name not in self._built:
            self._built[name] = _build(name, self.small)
        for other, loaded in self._built.items():
            if other != name:
                loaded.model.to("cpu")
        self._built[name].model.to(self.device)
        return self._built[name]


def _build(name: str, small: bool) -> Loaded:
    config: Any = read_yaml(CONFIGS / f"{name}.yaml")
    if small:
        config["model"]["params"]["unet_config"]["params"] |= {
            "channel_mult": [1],
            "attention_resolutions": [1],
        }
    trainer = (config.get("lightning") or {}).get("trainer") or {}
    torch.manual_seed(0)
    model = random_model(config, warmup_steps=0, scale_by_std=False)
    model.learning_rate = 1e-6
    size = config["data"]["params"]["train"]["params"]["size"]
    return Loaded(name, model, size, trainer.get("gradient_clip_val"))


def batch_of(loaded: Loaded, count: int) -> dict[str, Tensor]:
    """Return a training batch on the model's device; it repeats four faces, since drawing them takes time."""
    few = cached_batch(loaded.model, loaded.size, min(count, 4), loaded.model.device)
    return {key: torch.cat([value] * -(-count // len(value)))[:count] for key, value in few.items()}


def gflop_of(call: Callable[[], object]) -> float:
    """Return the GFLOP of products, convolutions and attention in a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


@contextmanager
def own_denoise(model: LatentDiffusion) -> Iterator[None]:
    """Restore `UNet.denoise` at the end, which compilation replaces."""
    try:
        yield
    finally:
        if model.unet.__dict__.pop("denoise", None) is not None:
            torch.compiler.reset()  # frees compiled code and the memory of its CUDA graphs


@contextmanager
def in_layout(model: LatentDiffusion, channels_last: bool) -> Iterator[None]:
    """Store convolution weights in channels-last memory format within the context, on request."""
    try:
        if channels_last:
            model.to(memory_format=torch.channels_last)
        yield
    finally:
        if channels_last:
            model.to(memory_format=torch.contiguous_format)


@contextmanager
def bfloat16_weights(network: nn.Module) -> Iterator[None]:
    """Store the weights of convolutions and linear layers in bfloat16 within the context.

    Autocast converts the same weights at every step, in a CUDA graph too, so that the outputs are equal.
    Norms keep float32.
    """
    layers = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    stored = [
        (parameter, parameter.data) for layer in layers for parameter in layer.parameters(recurse=False)
    ]
    try:
        for parameter, values in stored:
            parameter.data = values.to(torch.bfloat16)
        yield
    finally:
        for parameter, values in stored:
            parameter.data = values
