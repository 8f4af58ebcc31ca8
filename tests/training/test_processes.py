"""Two processes that share a batch, or the weights too, train as one that has all of it."""

from pathlib import Path

import pytest
import torch
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
    "model.params.revive_after=2",
    "model.params.n_embed=64",
    "model.params.start_from_means=true",
    "model.params.ddconfig.norm_groups=0",
    "model.params.anneal_steps=0",
)
DOUBLE = ("model.target=tests.training.doubles.DoubleDiffusion", "lightning.trainer.precision=32-true")
SECONDS = 400  # two processes wait for each other at every layer: a busy machine takes long
CLIPPED = "lightning.trainer.gradient_clip_val=0.5"


def keep(folder: Path) -> str:
    return f"lightning.callbacks.keep={{target: tests.training.tiny.KeepState, params: {{folder: {folder}}}}}"


def train_together(folder: Path, strategy: str, *overrides: str, base: Path) -> list[dict[str, Tensor]]:
    """Train in two processes that stop after three steps and go on; return what each has at the end."""
    two = ("lightning.trainer.devices=2", f"lightning.trainer.strategy={strategy}", keep(folder / "kept"))
    begun = start_process(folder, *overrides, *two, "lightning.trainer.max_steps=3", base=base)
    output = output_of(begun, SECONDS)
    assert begun.returncode == 0, output
    resumed = start_process(folder, "lightning.trainer.max_steps=5", resume=only_run(folder))
    output = output_of(resumed, SECONDS)
    assert resumed.returncode == 0, output
    return [torch.load(folder / "kept" / f"{rank}.pt") for rank in (0, 1)]


def train_alone(folder: Path, *overrides: str, base: Path) -> dict[str, Tensor]:
    assert train_here(folder, *overrides, keep(folder / "kept"), base=base) == 0
    return torch.load(folder / "kept" / "0.pt")


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("base", "own", "strategy"),
    [
        (DIFFUSION, (*SHORT, *OF_DIFFUSION), "ddp"),
        (FIRST_STAGE, (*SHORT, *OF_FIRST_STAGE), "ddp"),
        (DIFFUSION, (*SHORT, *OF_DIFFUSION, *DOUBLE, CLIPPED), "fsdp"),
    ],
    ids=["diffusion", "first stage", "sharded diffusion"],
)
def test_two_processes_get_the_weights_of_one_with_twice_the_batch(
    tmp_path: Path, base: Path, own: tuple[str, ...], strategy: str
) -> None:
    alone = train_alone(tmp_path / "one", *own, "data.params.batch_size=4", base=base)
    first, second = train_together(tmp_path / "two", strategy, *own, "data.params.batch_size=2", base=base)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_same(first, alone)
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


def test_gathered_batches_get_the_weights_of_one_large_batch(tmp_path: Path) -> None:
    """What is drawn for a picture depends on its number in the run, not on the batch that it comes in."""
    own = (*SHORT, *OF_DIFFUSION, "model.params.scale_by_std=false", "lightning.trainer.limit_val_batches=0")
    ends = {}
    for size, gathered, clip in ((4, 1, 0.05), (2, 2, 0.05), (4, 1, 0)):
        ends[gathered, clip] = train_alone(
            tmp_path / f"{gathered} {clip}",
            *own,
            f"data.params.batch_size={size}",
            f"lightning.trainer.accumulate_grad_batches={gathered}",
            f"lightning.trainer.gradient_clip_val={clip}",
            base=DIFFUSION,
        )
    assert_same(ends[2, 0.05], ends[1, 0.05])
    with pytest.raises(AssertionError):
        assert_same(ends[1, 0], ends[1, 0.05])
