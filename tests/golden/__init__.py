"""Recorded inputs and outputs of the published model, and how to read them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ldm.data.labels import one_hot
from ldm.targets import instantiate_from_config
from tests.golden.fill import fill

FOLDER = Path(__file__).parent
FORWARD, SAMPLED = 1e-4, 1e-3  # tolerances, relative to the largest expected value


def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what to build and call, and the inputs and expected outputs."""
    return json.loads((FOLDER / f"{name}.json").read_text()), load_file(FOLDER / f"{name}.safetensors")


def build(case: dict[str, Any]) -> Any:
    """Build the module of a case and fill it with the weights that its key names stand for."""
    return fill(instantiate_from_config({key: case[key] for key in ("target", "params")})).eval()


def mask_of(tensors: dict[str, Tensor], regions: int = 19) -> Tensor:
    """Return the one-hot mask of a case, zero where the case wants it so."""
    return one_hot(tensors["label"], regions) * (
        0.0 if tensors.get("zero_mask", torch.tensor(0)).item() else 1.0
    )


def assert_close(found: Tensor, expected: Tensor, tolerance: float = FORWARD) -> None:
    """Raise unless max|found - expected| <= tolerance * max|expected|."""
    assert found.shape == expected.shape
    error = (found - expected).abs().max().item() / expected.abs().max().item()
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"
