"""Two processes that share a batch, or the weights too, train as one that has all of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ldm.pipeline import FacePipeline
from tests import small
from tests.training.runs import ROOT, only_run, output_of, start_process, train_here

DIFFUSION, FIRST_STAGE = (
    ROOT / "configs" / kind / "synthetic-32.yaml" for kind in ("latent-diffusion", "autoencoder")
)
# In double precision, since Adam divides by the size of gradients: what rounding leaves of a zero would be a step. One
# step moves a weight by 5e-4.
SHORT = (
    "data.params.num_workers=0",
    "data.params.train.params.size=16",
    "data.params.validation.params={size: 16, length: 4}",
    "lightning.trainer={accelerator: cpu, max_steps: 5, val_check_interval: 4, precision: 64-true}",
    "lightning.callbacks.image_logger.params.disabled=true",
)
OF_DIFFUSION = (
    "model.params.first_stage_config.params.ckpt_path=null",
    "model.params.unet_config.params.channel_mult=[1]",
    "model.params.monitor=null",
    "model.params.probability_of_discard=0.3",
    "model.params.probability_of_region_discard=0.2",
    "model.params.probability_of_mask_discard=0.2",
    "model.params.anneal_steps=0",
)
OF_FIRST_STAGE = (
    "model.params.codebook_reset_after=2",
    "model.params.n_embed=64",
    "model.params.start_from_means=true",
    "model.params.ddconfig.norm_groups=0",
    "model.params.anneal_steps=0",
)
DATA_PARALLEL = ("lightning.trainer.devices=2", "lightning.trainer.strategy=ddp")
SHARDED = (
    *("lightning.trainer.devices=2", "lightning.trainer.strategy=fsdp"),
    *("model.target=tests.training.doubles.DoubleDiffusion", "lightning.trainer.precision=32-true"),
)
ALONE = (
    *("lightning.trainer.devices=1", "lightning.trainer.strategy=auto", "data.params.batch_size=4"),
    *("lightning.trainer.precision=64-true", "lightning.trainer.max_steps=5"),
)
SECONDS = 400  # two processes wait for each other at every layer: a busy machine takes long


def target_of(base: Path) -> str:
    return OmegaConf.load(base).model.target


def keep(folder: Path) -> str:
    return f"lightning.callbacks.keep={{target: tests.training.tiny.KeepState, params: {{folder: {folder}}}}}"


def train_together(folder: Path, steps: Sequence[int], *overrides: str, base: Path) -> list[dict[str, Any]]:
    """Train in two processes, anew for each number of steps, from the last one's checkpoint; return what each has."""
    for number, last in enumerate(steps):
        limit = f"lightning.trainer.max_steps={last}"
        process = (
            start_process(folder, limit, resume=only_run(folder))
            if number
            else start_process(folder, *overrides, keep(folder / "kept"), limit, base=base)
        )
        output = output_of(process, SECONDS)
        assert process.returncode == 0, output
    return [torch.load(folder / "kept" / f"{rank}.pt") for rank in (0, 1)]


def train_alone(folder: Path, *overrides: str, base: Path) -> dict[str, Tensor]:
    assert train_here(folder, *overrides, keep(folder / "kept"), base=base) == 0
    return torch.load(folder / "kept" / "0.pt")["state"]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("base", "own", "together", "steps"),
    [
        (DIFFUSION, OF_DIFFUSION, DATA_PARALLEL, (4,)),
        (FIRST_STAGE, OF_FIRST_STAGE, DATA_PARALLEL, (4,)),
        (DIFFUSION, (*OF_DIFFUSION, "lightning.trainer.gradient_clip_val=0.5"), SHARDED, (3, 4)),
    ],
    ids=["diffusion", "first stage", "sharded diffusion"],
)
# As large a batch of all, shared otherwise, is no change to warn of.
@pytest.mark.filterwarnings("error:.*batch_size was")
def test_two_processes_get_the_weights_of_one_with_twice_the_batch(
    tmp_path: Path, base: Path, own: tuple[str, ...], together: tuple[str, ...], steps: tuple[int, ...]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone = train_alone(one, *SHORT, *own, "data.params.batch_size=4", base=base)
    ranks = train_together(two, steps, *SHORT, *own, *together, "data.params.batch_size=2", base=base)
    first, second = (rank["state"] for rank in ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    if together is SHARDED:
        assert all(rank["held"] < 0.55 * rank["trained"] for rank in ranks)
    # The last step is taken by one process alone: nothing in a checkpoint depends on how many there were.
    assert train_here(two, *ALONE, f"model.target={target_of(base)}", resume=only_run(two)) == 0
    assert_same(torch.load(two / "kept" / "0.pt")["state"], alone)
    if base is DIFFUSION:
        pictures(tmp_path)


def pictures(folder: Path) -> None:
    """The run folder of two processes makes the pictures of that of one."""
    batch = small.batch(2)
    drawn = []
    for name in ("one", "two"):
        pipe = FacePipeline.from_pretrained(only_run(folder / name), device="cpu")
        drawn.append(pipe(batch["labels"], pipe.read_style(batch["image"], batch["labels"]), steps=2, seed=0))
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-4, rtol=0)
