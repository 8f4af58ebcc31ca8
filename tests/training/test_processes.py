"""Two processes that share a batch train as one that has all of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.runs import ROOT, only_run, output_of, start_process, train_here

DIFFUSION, FIRST_STAGE = (
    ROOT / "configs" / kind / "synthetic-32.yaml" for kind in ("latent-diffusion", "autoencoder")
)
# In double precision, since Adam divides by the size of gradients: what rounding leaves of a zero would be a step.
SHORT = (
    "data.params.num_workers=0",
    "data.params.train.params.size=16",
    "data.params.validation.params={size: 16, length: 4}",
    "lightning.trainer={accelerator: cpu, max_steps: 5, val_check_interval: 4, precision: 64-true}",
    "lightning.callbacks.image_logger.params.disabled=true",
)
OF_DIFFUSION = (
    "model.params.first_stage_config.params.ckpt_path=null",
    "model.params.unet_config.params.channel_mult=[1, 1]",
    "model.params.probability_of_discard=0.3",
    "model.params.probability_of_region_discard=0.2",
    "model.params.probability_of_mask_discard=0.2",
    "model.params.anneal_steps=0",
)
TOGETHER = ("lightning.trainer.devices=2", "lightning.trainer.strategy=ddp")


def keep(folder: Path) -> str:
    return f"lightning.callbacks.keep={{target: tests.training.tiny.KeepState, params: {{folder: {folder}}}}}"


def train_together(folder: Path, *overrides: str, base: Path) -> list[dict[str, Tensor]]:
    """Train in two processes; return what each has at the end."""
    process = start_process(folder, *overrides, *TOGETHER, keep(folder / "kept"), base=base)
    output = output_of(process)
    assert process.returncode == 0, output
    return [torch.load(folder / "kept" / f"{rank}.pt") for rank in (0, 1)]


def train_alone(folder: Path, *overrides: str, base: Path) -> dict[str, Tensor]:
    assert train_here(folder, *overrides, keep(folder / "kept"), base=base) == 0
    return torch.load(folder / "kept" / "0.pt")


@pytest.mark.parametrize(
    ("base", "own"),
    [
        (DIFFUSION, OF_DIFFUSION),
        (FIRST_STAGE, ("model.params.revive_after=2", "model.params.n_embed=64")),
        (
            FIRST_STAGE,
            ("model.params.start_from_means=true", "model.params.ddconfig.norm_groups=0"),
        ),
    ],
    ids=["diffusion", "codebook revived", "latents whitened"],
)
def test_two_processes_get_the_weights_of_one_with_twice_the_batch(
    tmp_path: Path, base: Path, own: tuple[str, ...]
) -> None:
    alone = train_alone(tmp_path / "one", *SHORT, *own, "data.params.batch_size=4", base=base)
    first, second = train_together(tmp_path / "two", *SHORT, *own, "data.params.batch_size=2", base=base)
    assert alone.keys() == first.keys() == second.keys()
    for name, wanted in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], wanted, rtol=1e-6, atol=1e-9, msg=name)
