"""Start runs of the tiny model, in this process or in one of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ldm.training.metrics_csv import read_rows
from ldm.training.session import Options, run

ROOT = Path(__file__).parents[2]

# 7 batches an epoch, 2 of validation.
TINY: dict[str, Any] = {
    "model": {"target": "tests.training.tiny.TinyModel", "base_learning_rate": 1e-3, "params": {}},
    "data": {
        "target": "main.DataModuleFromConfig",
        "params": {
            "batch_size": 4,
            "num_workers": 0,
            "train": {"target": "tests.training.tiny.TinyFaces", "params": {"length": 30}},
            "validation": {"target": "tests.training.tiny.TinyFaces", "params": {"length": 6}},
        },
    },
    "lightning": {
        "trainer": {"max_epochs": 3, "log_every_n_steps": 1, "accelerator": "cpu"},
        "callbacks": {"image_logger": {"target": "main.ImageLogger", "params": {"disabled": True}}},
    },
}


def write_tiny(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    OmegaConf.save(OmegaConf.create(TINY), path)
    return path


def train_here(folder: Path, *overrides: str, resume: Path | None = None, base: Path | None = None) -> int:
    """Train in this process: a new run of `base`, or else the tiny model, under `folder`, or go on with `resume`."""
    yamls = () if resume else (base or write_tiny(folder),)
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # threads that wait for each other on a busy machine take longer than these layers
    try:
        return run(
            Options(
                "train",
                base=yamls,
                overrides=overrides,
                resume=resume,
                logdir=folder / "runs",
                allow_targets=("tests",),
            )
        )
    finally:
        torch.set_num_threads(threads)


def start_process(
    folder: Path,
    *overrides: str,
    base: Path | None = None,
    resume: Path | None = None,
    group: bool = False,
) -> "subprocess.Popen[str]":
    """Start `python main.py -t` of `base`, or else the tiny model, under `folder`, or go on with `resume`.

    As a process group on request.
    """
    start = (
        ["--resume", str(resume), "--allow-targets", "tests"]
        if resume
        else ["-b", str(base or write_tiny(folder))]
    )
    command = [
        sys.executable,
        "main.py",
        *start,
        "-t",
        "--logdir",
        str(folder / "runs"),
    ]
    return subprocess.Popen(
        [*command, *overrides],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=group,
        preexec_fn=_default_signals,
    )


def _default_signals() -> None:
    """Undo what a shell's background job (SIGINT) or nohup (SIGHUP) has set to be ignored."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


def output_of(process: "subprocess.Popen[str]", seconds: float = 120) -> str:
    """Wait for the end of a process and return what it has printed; kill it if that takes too long."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"the process hung:\n{process.communicate()[0]}") from None


def only_run(folder: Path) -> Path:
    (found,) = (folder / "runs").iterdir()
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    return read_rows(only_run(folder) / "metrics.csv")


def wait_until(happened: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    """Wait for something that a process does; fail with its output if it ends or takes too long."""
    deadline = time.monotonic() + seconds
    while not happened():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"the process ended early or hung:\n{process.communicate()[0]}")
        time.sleep(0.01)
