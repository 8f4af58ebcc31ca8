"""FacePipeline: loading weights from wherever they are, styles, images."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoint import CheckpointError, write_checkpoint
from ldm.pipeline import FacePipeline, interpolate, psnr, swap
from ldm.targets import instantiate_from_config
from tests import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights whose averages differ from the last ones."""
    path, config = tmp_path_factory.mktemp("weights") / "small", small.diffusion()
    model = small.sensitive(config)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter *= 1.2
    path.mkdir()
    write_checkpoint(path, model.state_dict(), {"model": config})
    return path


@pytest.fixture(scope="module")
def pipe(folder: Path) -> FacePipeline:
    return FacePipeline.from_pretrained(folder, device="cpu")


def run(pipe: FacePipeline, seeds: list[int], batch: dict, **how) -> torch.Tensor:
    rows = slice(0, len(seeds))
    style = pipe.read_style(batch["image"][rows], batch["labels"][rows])
    return pipe(batch["labels"][rows], style, seeds=seeds, steps=3, **how)


def test_average_and_last_weights(folder: Path, pipe: FacePipeline) -> None:
    batch = small.batch(1)
    average = FacePipeline.from_pretrained(folder, weights="ema", device="cpu")
    last = FacePipeline.from_pretrained(folder, weights="raw", device="cpu")
    assert torch.equal(run(pipe, [0], batch), run(average, [0], batch))
    assert not torch.equal(run(last, [0], batch), run(average, [0], batch))


def test_a_run_folder_and_its_checkpoint(folder: Path, pipe: FacePipeline, tmp_path: Path) -> None:
    model, config = instantiate_from_config(small.diffusion()), {"model": small.diffusion()}
    config["data"] = {"params": {"train": {"params": {"size": [16, 32]}}}}
    (tmp_path / "checkpoints").mkdir()
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    file = tmp_path / "checkpoints" / "last.ckpt"
    torch.save({"state_dict": model.state_dict(), "global_step": 3}, file)
    assert FacePipeline.from_pretrained(tmp_path, device="cpu").size == (16, 32)
    assert FacePipeline.from_pretrained(file, device="cpu").size == (16, 32)
    assert pipe.size == (16, 16)


def test_a_checkpoint_without_a_config_takes_the_one_that_is_named(tmp_path: Path) -> None:
    model = instantiate_from_config(small.diffusion(use_ema=False))
    file = tmp_path / "original.ckpt"
    torch.save({"state_dict": model.state_dict()}, file)
    with pytest.raises(CheckpointError, match="no config beside it; name the YAML"):
        FacePipeline.from_pretrained(file)
    config = tmp_path / "recipe.yaml"
    OmegaConf.save(OmegaConf.create({"model": small.diffusion()}), config)
    assert FacePipeline.from_pretrained(file, config=config, device="cpu").label_set.name == "CelebAMask-HQ"
    with pytest.raises(CheckpointError, match="there is no such config"):
        FacePipeline.from_pretrained(file, config=tmp_path / "none.yaml")


def test_a_first_stage_is_not_a_pipeline(tmp_path: Path) -> None:
    config = small.first_stage()
    write_checkpoint(tmp_path, instantiate_from_config(config).state_dict(), {"model": config})
    with pytest.raises(CheckpointError, match="holds a VQModel"):
        FacePipeline.from_pretrained(tmp_path, weights="raw")


@pytest.mark.parametrize(
    "how", [{"eta": 1.0}, {"solver": "ddpm"}, {"solver": "plms"}, {"guidance": 2.0}], ids=str
)
def test_the_image_of_a_seed_does_not_depend_on_its_batch(pipe: FacePipeline, how: dict) -> None:
    batch = small.batch(1)
    three = {key: value.repeat_interleave(3, 0) for key, value in batch.items() if key != "name"}
    together, alone = run(pipe, [4, 5, 6], three, **how), run(pipe, [5], batch, **how)
    torch.testing.assert_close(alone[0], together[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_guidance_pulls_away_from_the_empty_images_style(pipe: FacePipeline) -> None:
    batch = small.batch(1)
    empty = pipe(batch["labels"], pipe.random_style(batch["labels"]), seeds=[0], steps=3)
    plain, none, more = (run(pipe, [0], batch, guidance=scale) for scale in (1.0, 0.0, 2.0))
    torch.testing.assert_close(none, empty)
    assert not torch.equal(plain, more)


def test_swap_and_interpolation_touch_their_regions_alone() -> None:
    a, b = torch.randn(2, 19, 8), torch.randn(2, 19, 8)
    mixed = swap(a, b, [13, 4])
    assert torch.equal(mixed[:, [13, 4]], b[:, [13, 4]])
    others = [r for r in range(19) if r not in (13, 4)]
    assert torch.equal(mixed[:, others], a[:, others])
    assert torch.equal(swap(a, b), b)
    half = interpolate(a, b, 0.5, [13])
    torch.testing.assert_close(half[:, 13], (a[:, 13] + b[:, 13]) / 2)
    assert torch.equal(half[:, :13], a[:, :13])
    assert torch.equal(interpolate(a, b, 0.0), a) and torch.equal(interpolate(a, b, 1.0), b)


def test_psnr_has_its_closed_form() -> None:
    image = torch.zeros(2, 3, 4, 4)
    shifted = image.clone()
    shifted[1] += 0.2  # 0.1 of the range: 20 dB
    assert psnr(shifted, image)[0] == math.inf
    assert psnr(shifted, image)[1] == pytest.approx(20)


def test_what_does_not_fit_is_said(pipe: FacePipeline) -> None:
    batch = small.batch(2)
    style = pipe.read_style(batch["image"], batch["labels"])
    with pytest.raises(ValueError, match="2 label maps, 2 styles and 1 seeds"):
        pipe(batch["labels"], style, seeds=[0])
    with pytest.raises(ValueError, match="'hare'; did you mean one of: hair"):
        pipe.indices(["hare"])
    with pytest.raises(ValueError, match=r"labels hold \[77\]"):
        pipe.read_style(batch["image"], torch.full_like(batch["labels"], 77))
