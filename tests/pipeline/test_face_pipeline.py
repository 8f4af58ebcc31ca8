"""FacePipeline: loading weights from wherever they are, styles, images."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import write_checkpoint
from ldm.metrics.pixels import psnr
from ldm.pipeline import FacePipeline
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
    styles = pipe.read_style(batch["image"][rows], batch["labels"][rows])
    return pipe(batch["labels"][rows], styles, **{"seed": seeds, "steps": 3, "solver": "ddim", **how})


def test_average_and_last_weights(folder: Path, pipe: FacePipeline) -> None:
    batch = small.batch(1)
    average = FacePipeline.from_pretrained(folder, weights="ema", device="cpu")
    last = FacePipeline.from_pretrained(folder, weights="raw", device="cpu")
    assert torch.equal(run(pipe, [0], batch), run(average, [0], batch))
    assert not torch.equal(run(last, [0], batch), run(average, [0], batch))


def test_half_precision_is_nearly_the_same_picture(folder: Path, pipe: FacePipeline) -> None:
    batch = small.batch(1)
    half = FacePipeline.from_pretrained(folder, device="cpu", precision="bfloat16")
    seen: list[torch.dtype] = []
    half.model.unet.input_blocks[0].register_forward_hook(lambda module, x, out: seen.append(out.dtype))
    found, exact = run(half, [0], batch), run(pipe, [0], batch)
    assert set(seen) == {torch.bfloat16} and found.dtype == torch.float32
    assert not torch.equal(found, exact) and (found - exact).abs().mean() < 0.1
    assert FacePipeline.from_pretrained(folder, device="cpu").sampler.dtype == torch.float32
    with pytest.raises(ValueError, match="unknown precision 'int4'; available: auto"):
        FacePipeline.from_pretrained(folder, device="cpu", precision="int4")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile wants a C++ compiler")
def test_compiled_it_is_the_same_picture(folder: Path, pipe: FacePipeline) -> None:
    batch = small.batch(1)
    compiled = FacePipeline.from_pretrained(folder, device="cpu", compile=True)
    torch.testing.assert_close(run(compiled, [0], batch), run(pipe, [0], batch), rtol=1e-4, atol=1e-4)


def test_without_the_cache_it_is_the_same_picture(pipe: FacePipeline) -> None:
    batch = small.batch(2)
    kept, anew = (run(pipe, [0, 1], batch, guidance=2.0, cache=cache) for cache in (True, False))
    torch.testing.assert_close(kept, anew, rtol=1e-5, atol=1e-5)


def test_a_model_of_the_hub(folder: Path, pipe: FacePipeline, tmp_path: Path) -> None:
    """As the hub's own library keeps it on disk; a process of its own, which may not ask the network."""
    snapshot = tmp_path / "models--anna--faces" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(folder)
    refs = tmp_path / "models--anna--faces" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    code = (
        "import sys; from ldm.pipeline import FacePipeline; "
        "print(FacePipeline.from_pretrained(sys.argv[1]).encoder_fingerprint)"
    )

    def load(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, name],
            env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )

    found = load("anna/faces")
    assert found.stdout.strip() == pipe.encoder_fingerprint, found.stderr
    assert (
        "CheckpointError: anna/nobody: not a local path, and the Hugging Face hub"
        in load("anna/nobody").stderr
    )


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
    with pytest.raises(CheckpointError, match="no config next to it; pass the YAML"):
        FacePipeline.from_pretrained(file)
    config = tmp_path / "recipe.yaml"
    OmegaConf.save(OmegaConf.create({"model": small.diffusion()}), config)
    assert FacePipeline.from_pretrained(file, config=config, device="cpu").label_set.name == "CelebAMask-HQ"
    with pytest.raises(CheckpointError, match=r"none\.yaml: there is no such file"):
        FacePipeline.from_pretrained(file, config=tmp_path / "none.yaml")


def test_a_first_stage_is_not_a_pipeline(tmp_path: Path) -> None:
    config = small.first_stage()
    write_checkpoint(tmp_path, instantiate_from_config(config).state_dict(), {"model": config})
    with pytest.raises(CheckpointError, match="got a VQModel"):
        FacePipeline.from_pretrained(tmp_path, weights="raw")


@pytest.mark.parametrize(
    "how",
    [{"eta": 1.0}, {"solver": "ddpm"}, {"solver": "plms"}, {"solver": "dpmpp_2m"}, {"guidance": 2.0}],
    ids=str,
)
def test_the_image_of_a_seed_does_not_depend_on_its_batch(pipe: FacePipeline, how: dict) -> None:
    batch = small.batch(1)
    three = {key: value.repeat_interleave(3, 0) for key, value in batch.items() if key != "name"}
    together, alone = run(pipe, [4, 5, 6], three, **how), run(pipe, [5], batch, **how)
    in_parts = run(pipe, [4, 5, 6], three, batch_size=2, **how)
    torch.testing.assert_close(alone[0], together[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(in_parts, together, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_one_of_each_gives_one_and_one_serves_many(pipe: FacePipeline) -> None:
    batch = small.batch(2)
    first, second = pipe.read_style(batch["image"], batch["labels"])
    alone = pipe.read_style(batch["image"][0], batch["labels"][0])
    torch.testing.assert_close(alone.codes, first.codes, atol=1e-5, rtol=1e-5)
    assert pipe(batch["labels"][0], first, steps=2).shape == (3, 16, 16)
    both = pipe(batch["labels"][0], [first, second], steps=2)
    torch.testing.assert_close(both[1], pipe(batch["labels"][0], second, steps=2), atol=1e-4, rtol=1e-4)
    assert pipe(batch["labels"], first, steps=2).shape == (2, 3, 16, 16)


def test_guidance_pulls_away_from_the_null(pipe: FacePipeline) -> None:
    batch = small.batch(1)
    empty = pipe(batch["labels"], pipe.null_style(batch["labels"]), steps=3, solver="ddim")
    plain, none, more = (run(pipe, [0], batch, guidance=scale) for scale in (1.0, 0.0, 2.0))
    torch.testing.assert_close(none, empty)
    assert not torch.equal(plain, more)
    assert not torch.equal(run(pipe, [0], batch, guidance=2.0, null="zero"), more)
    # sigma is at most 12.5 in this schedule: above it nothing is guided, and below it everything is.
    torch.testing.assert_close(run(pipe, [0], batch, guidance=2.0, guidance_interval=(50, 90)), plain)
    torch.testing.assert_close(run(pipe, [0], batch, guidance=2.0, guidance_interval=(0, 90)), more)


def test_guidance_by_region(pipe: FacePipeline) -> None:
    batch = small.batch(1)
    everywhere = dict.fromkeys(pipe.label_set.regions, 2.0)
    torch.testing.assert_close(
        run(pipe, [0], batch, guidance=everywhere), run(pipe, [0], batch, guidance=2.0)
    )
    skin = run(pipe, [0], batch, guidance={"skin": 9.0})
    assert not torch.equal(skin, run(pipe, [0], batch))
    assert not torch.equal(skin, run(pipe, [0], batch, guidance=2.0))


def test_progress_counts_the_steps_of_all_batches(pipe: FacePipeline) -> None:
    seen: list[tuple[int, int]] = []
    run(
        pipe, [0, 1, 2], small.batch(3), batch_size=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1][0] == seen[-1][1] == len(seen) and seen == sorted(seen)


def test_a_border_without_a_lock_warns(pipe: FacePipeline) -> None:
    batch = small.batch(1)
    image, labels = batch["image"][0], batch["labels"][0]
    style = pipe.read_style(image, labels)
    with pytest.warns(UserWarning, match="border has no effect with lock=False"):
        pipe.edit(image, labels, style, regions=["hair"], steps=1, lock=False, border=2)


def test_a_locked_edit_leaves_every_pixel_outside_alone(pipe: FacePipeline) -> None:
    batch = small.batch(3, size=32)
    image, labels = batch["image"], batch["labels"]
    styles = pipe.read_style(image, labels)
    mixed = [style.swap(styles[-1], ["hair"]) for style in styles]
    edited = pipe.edit(image, labels, mixed, regions=["hair"], steps=3, border=2)
    hair = labels == pipe.label_set.index("hair")
    near = torch.nn.functional.max_pool2d(hair[:, None].float(), 5, 1, 2) > 0
    assert torch.equal(
        edited.masked_select(~near.expand_as(edited)), image.masked_select(~near.expand_as(image))
    )
    changed = (edited - image).abs().amax(1)
    assert changed[hair].median() > 0.1
    free = pipe.edit(image, labels, mixed, regions=["hair"], steps=3, lock=False)
    assert not torch.allclose(free[~hair[:, None].expand_as(free)], image[~hair[:, None].expand_as(free)])


def test_an_edited_mask_frees_what_it_changes(pipe: FacePipeline) -> None:
    batch = small.batch(1, size=32)
    image, labels = batch["image"][0], batch["labels"][0]
    new = labels.clone()
    new[:6, :6] = pipe.label_set.index("hat")
    edited = pipe.edit(
        image, labels, pipe.read_style(image, labels), regions=[], new_labels=new, steps=2, border=1
    )
    differs = ((edited - image).abs().amax(0) > 0).nonzero()
    assert edited.shape == image.shape and len(differs) and differs.max() <= 6


def test_inversion_comes_back_to_the_photo(pipe: FacePipeline) -> None:
    batch = small.batch(2, size=32)
    image, labels = batch["image"], batch["labels"]
    styles = pipe.read_style(image, labels)
    with torch.no_grad():
        kept = 0.2 * pipe.model.unet.out[-1].weight  # a network as mild as a trained one
        pipe.model.unet.out[-1].weight.copy_(kept)
    seen: list[tuple[int, int]] = []
    try:
        again = pipe.edit(
            image,
            labels,
            styles,
            regions=[],
            lock=False,
            invert=True,
            steps=100,
            progress=lambda done, total: seen.append((done, total)),
        )
        other = pipe(labels, styles, steps=100, solver="ddim")
        ceiling = pipe.autoencode(image)
    finally:
        with torch.no_grad():
            pipe.model.unet.out[-1].weight.copy_(kept / 0.2)
    assert (again - ceiling).abs().mean() < 0.25 * (other - ceiling).abs().mean()
    assert seen[-1] == (200, 200) and seen == sorted(seen)


def test_psnr_has_its_closed_form() -> None:
    image = torch.zeros(2, 3, 4, 4)
    shifted = image.clone()
    shifted[1] += 0.2  # 0.1 of the range: 20 dB
    assert psnr(shifted, image)[0] == math.inf
    assert psnr(shifted, image)[1] == pytest.approx(20)


def test_too_little_memory_is_said_with_what_would_fit(pipe: FacePipeline, monkeypatch) -> None:
    batch = small.batch(1, size=64)
    monkeypatch.setattr("ldm.pipeline.image_sampler.free_bytes", lambda device: 1_000_000)
    with pytest.raises(ValueError, match=r"64x64 needs about .* GiB, but cpu has .* GiB free") as caught:
        run(pipe, [0], batch)
    side = int(str(caught.value).partition("sample at ")[2].partition("x")[0])
    assert 8 <= side < 64
    assert run(pipe, [0], small.batch(1, size=side)).shape[-1] == side
    monkeypatch.setattr("ldm.pipeline.image_sampler.free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match=r"close other programs$"):
        run(pipe, [0], batch)


def test_as_many_at_once_as_memory_lets(pipe: FacePipeline, monkeypatch) -> None:
    sizes: list[int] = []
    apply_model = pipe.model.apply_model

    def counting(x, t, cond):
        sizes.append(len(x))
        return apply_model(x, t, cond)

    monkeypatch.setattr(pipe.model, "apply_model", counting)
    run(pipe, [0, 1, 2], small.batch(3))
    assert set(sizes) == {3}
    sizes.clear()
    monkeypatch.setattr("ldm.pipeline.image_sampler.free_bytes", lambda device: 1_000_000)
    run(pipe, [0, 1, 2], small.batch(3))
    assert set(sizes) == {1}
