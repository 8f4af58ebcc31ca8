"""Part of `make gpu`: training in several processes on a GPU gets the weights of one process with the same batch.

Over gloo, two processes share a GPU; they are started as two nodes, since Lightning refuses repeated device
ids. NCCL takes one process a GPU. In double precision, so that only rounding differs (docs/scaling.md).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scripts.gpu.report import Report, Row, part_options

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/latent-diffusion/synthetic-32.yaml"
BATCH = 4  # of all processes together
SHORT = (
    *("data.params.num_workers=0", "data.params.train.params.size=16"),
    "data.params.validation.params={size: 16, length: 4}",
    "lightning.trainer.max_steps=4",
    "lightning.trainer.val_check_interval=4",
    "lightning.trainer.precision=64-true",
    "lightning.callbacks.image_logger.params.disabled=true",
    "model.params.first_stage_config.params.ckpt_path=null",
    "model.params.unet_config.params.channel_mult=[1]",
    "model.params.probability_of_region_discard=0.2",
    *("model.params.monitor=null", "model.params.anneal_steps=0"),
    "model.scale_lr=false",
)
LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def main(arguments: list[str] | None = None) -> int:
    """Compare the weights; return 1 if a row has no result."""
    options = part_options(__doc__, arguments)
    report = options.report()
    rows = [Row("two processes over gloo on one device", partial(over_gloo, report), 12)]
    if report.device.type == "cuda":
        rows += [
            Row("one process over NCCL", partial(over_nccl, report, 1), 12),
            Row("two processes over NCCL on two GPUs", partial(over_nccl, report, 2), 12),
        ]
    return report.run(rows)


def over_gloo(report: Report) -> Mapping[str, Any]:
    """Compare two processes on one device with one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    overrides = ("num_nodes=2", "devices=1", "strategy=ddp_gloo")
    ranks = [
        ({"RANK": str(rank), "NODE_RANK": str(rank), "LOCAL_RANK": "0", "MASTER_PORT": port}, overrides)
        for rank in (0, 1)
    ]
    return compare(report, ranks, BATCH // 2)


def over_nccl(report: Report, count: int) -> Mapping[str, Any]:
    """Compare `count` processes with as many GPUs, started by Lightning, with one process without NCCL."""
    if torch.cuda.device_count() < count:
        return {"note": f"needs {count} GPUs, found {torch.cuda.device_count()}"}
    return compare(report, [({}, (f"devices={count}", "strategy=ddp"))], BATCH // count)


def compare(
    report: Report, processes: Sequence[tuple[dict[str, str], Sequence[str]]], batch: int
) -> dict[str, Any]:
    """Train together and alone at the same time, and compare the weights of the last checkpoints.

    Args:
        report: gives the device and the time limit.
        processes: environment and options of `lightning.trainer` of each process that is started.
        batch: batch size per process.

    Raises:
        AssertionError: weights differ by more than rounding.
        RuntimeError: a process failed.
        TimeoutError: the time is up.
    """
    started = time.monotonic()
    kind = "gpu" if report.device.type == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        one, several = Path(folder) / "one", Path(folder) / "several"
        trained = [start(one, {}, ("devices=1", f"accelerator={kind}"), BATCH)]
        trained += [
            start(several, env, (*options, f"accelerator={kind}"), batch) for env, options in processes
        ]
        try:
            wait(trained, report.until)
        except (RuntimeError, TimeoutError):
            for log in sorted(Path(folder).glob("*/*.log")):
                print(f"--- {log.relative_to(folder)}", log.read_text()[-4000:], sep="\n", flush=True)
            raise
        expected, found = weights_of(one), weights_of(several)
    assert found.keys() == expected.keys(), (
        f"weights {sorted(found.keys() ^ expected.keys())[:3]} are in one only"
    )
    for name, value in expected.items():
        try:
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
    numbers = [name for name, value in expected.items() if value.is_floating_point()]
    largest = max((found[name] - expected[name]).abs().max().item() for name in numbers)
    return {"tensors": len(expected), "largest_difference": largest, "total_s": time.monotonic() - started}


def start(folder: Path, env: dict[str, str], options: Sequence[str], batch: int) -> subprocess.Popen[str]:
    """Start main.py, with its output in a file beside its run."""
    folder.mkdir(exist_ok=True)
    trainer = [f"lightning.trainer.{option}" for option in options]
    command = [sys.executable, "main.py", "-b", CONFIG, "-t", "--logdir", str(folder / "runs")]
    with (folder / f"{env.get('RANK', 0)}.log").open("w") as log:
        return subprocess.Popen(
            [*command, *SHORT, *trainer, f"data.params.batch_size={batch}"],
            cwd=ROOT,
            env={**os.environ, **LOOPBACK, **env},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def wait(processes: Sequence[subprocess.Popen[str]], until: float) -> None:
    """Wait for all; end all if one fails or the time is up, since the others would wait for it."""
    try:
        # All are polled: the first may wait for one that has failed.
        while None in (states := [process.poll() for process in processes]) and not any(states):
            if time.time() > until:
                raise TimeoutError("the time is up before the training of all processes ended")
            time.sleep(0.1)
        if failed := [status for status in states if status]:
            raise RuntimeError(f"a process ended with status {failed[0]}")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the last checkpoint of the only run in a folder."""
    (checkpoint,) = folder.glob("runs/*/checkpoints/last.ckpt")
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]


if __name__ == "__main__":
    sys.exit(main())
