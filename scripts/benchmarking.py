"""Shared parts of the benchmarks: models and batches to measure, and the matrix rate of the same machine."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ldm.atomic_files import write_text

if TYPE_CHECKING:
    from ldm.models.diffusion import LatentDiffusion

MATRIX = 2048  # side of the square matrices whose product gives the rate of a CPU
GPU_MATRIX = 8192  # the same of a GPU, whose smaller products do not fill it


class Row(NamedTuple):
    """One line of the table."""

    part: str
    gflop: float  # 0 if not counted
    seconds: float
    share: float | None = None  # of the rate of plain matrix products in the same precision
    note: str = ""


def random_model(config: Any, **params: Any) -> LatentDiffusion:
    """Build the model of a config with random weights, on which time does not depend.

    Args:
        config: content of a YAML file; a checkpoint of the first stage need not exist.
        params: parameters of the model to replace.

    Raises:
        ConfigError: not the config of a diffusion model.
    """
    from ldm.targets import ConfigError, check_config, instantiate_from_config

    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or "first_stage_config" not in (model.get("params") or {}):
        raise ConfigError("the config has no diffusion model; expected model.params.first_stage_config")
    first_stage = model["params"]["first_stage_config"]
    first_stage = {**first_stage, "params": {**first_stage["params"], "ckpt_path": None}}
    section = {**model["params"], "first_stage_config": first_stage, "anneal_steps": 0, **params}
    built = {"target": model.get("target"), "params": section}
    check_config(built, "model")
    return instantiate_from_config(built)


def cached_batch(
    model: LatentDiffusion, size: int, count: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return a training batch of generated faces with random cached latents."""
    from ldm.data.synthetic.dataset import SyntheticFaces

    dataset = SyntheticFaces(size, count, seed=0)
    faces = [dataset[i] for i in range(count)]
    side = size // model.first_stage_model.factor
    return {
        "image": torch.stack([face["image"] for face in faces]).to(device),
        "labels": torch.stack([face["labels"] for face in faces]).to(device) % model.num_regions,
        "latent": torch.randn(count, model.channels, side, side, device=device),
    }


def matrix_rate(precision: str, device: torch.device, repeats: int = 3, side: int | None = None) -> float:
    """Return the GFLOP/s of the product of two square matrices, the best of a few."""
    side = side or (GPU_MATRIX if device.type == "cuda" else MATRIX)
    a = torch.randn(side, side, device=device).to(getattr(torch, precision))
    best = float("inf")
    for _ in range(2 + repeats):
        started = time.perf_counter()
        a @ a
        finish(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best / 1e9


def finish(device: torch.device) -> None:
    """Synchronize with the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of the device, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def processor() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine(device: torch.device) -> dict[str, Any]:
    """Return the name of the device, versions, and the peak memory so far, for a benchmark report."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "peak_memory_gib": round(peak_memory(device) / 2**30, 2),
    }


def publish(rows: list[Row], facts: dict[str, Any], out: Path) -> None:
    """Print a benchmark's table and facts, and write both as JSON."""
    print(table(rows))
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps({**facts, "rows": [row._asdict() for row in rows]}, indent=1))
    print(f"written to {out}")


def table(rows: list[Row]) -> str:
    """Format rows as a Markdown table."""
    lines = ["| part | GFLOP | seconds | share of matrix rate | |", "| --- | ---: | ---: | ---: | --- |"]
    for row in rows:
        share = "" if row.share is None else f"{100 * row.share:.0f} %"
        gflop = f"{row.gflop:,.1f}" if row.gflop else ""
        lines.append(f"| {row.part} | {gflop} | {row.seconds:.3f} | {share} | {row.note} |")
    return "\n".join(lines)
