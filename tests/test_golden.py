"""The networks compute what the published model computes."""

import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ldm.data.labels import one_hot
from ldm.modules.ema import EMA
from ldm.pipeline import FacePipeline
from ldm.sampling import NoiseSchedule, guide, sample
from ldm.targets import instantiate_from_config
from tests.golden import FOLDER, SAMPLED, assert_close, build, mask_of, read
from tests.golden.fill import fill

# The full-size case is a megabyte that only the slow test reads; it stays beside the checkout.
FULL_SIZE = Path(os.environ.get("GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


@pytest.mark.parametrize("name", ["unet_mask", "unet_plain", "unet_zero_mask"])
def test_unet(name: str) -> None:
    case, tensors = read(name)
    with torch.no_grad():
        out = build(case)(tensors["x"], tensors["t"], context=tensors["context"], y=mask_of(tensors))
    assert_close(out, tensors["out"])


def test_style_encoder() -> None:
    case, tensors = read("style_encoder")
    encoder = build(case)
    with torch.no_grad():
        assert_close(encoder(tensors["image"], mask_of(tensors)), tensors["out"])
        empty = encoder(torch.zeros_like(tensors["image"]), mask_of(tensors))
    assert_close(empty, tensors["out_zero_image"])


def test_first_stage() -> None:
    case, tensors = read("vq")
    first_stage = build(case)
    with torch.no_grad():
        encoded = first_stage.encode(tensors["image"])
        assert_close(encoded, tensors["encoded"])
        indices = first_stage.quantize.nearest(tensors["encoded"])
        assert torch.equal(indices, tensors["indices"].long())
        assert_close(first_stage.quantize.look_up(indices), tensors["quantized"])  # recorded as z + (q - z)
        assert_close(first_stage.decode(tensors["encoded"]), tensors["decoded"])
        assert_close(
            first_stage.decode(tensors["encoded"], force_not_quantize=True), tensors["decoded_not_quantized"]
        )


@pytest.mark.parametrize("name", ["ddim_10", "ddim_10_cfg2"])
def test_ddim(name: str) -> None:
    case, tensors = read(name)
    model, y = build(case), mask_of(tensors)
    with torch.no_grad():
        style = model.get_learned_conditioning(tensors["image"], y)
        assert_close(style, tensors["context"])
        predict = guide(
            model.apply_model, {"context": style, "y": y}, {"context": 0 * style, "y": 0 * y}, case["scale"]
        )
        z = sample(predict, tensors["x_T"], model.schedule, steps=case["steps"], solver="ddim")
        assert_close(z, tensors["out"], SAMPLED)
        assert_decoded(model, z, tensors["out"], tensors["decoded"])


def test_an_original_checkpoint_gives_the_originals_numbers(tmp_path: Path) -> None:
    """The file as Lightning 1.4 writes it, the config as published, the numbers as recorded."""
    case, tensors = read("ddim_10")
    trained, labels = build(case), tensors["label"]
    trained.model_ema = EMA(trained.model)  # the averages of a model that no longer changes
    callback = type("ModelCheckpoint", (), {"__module__": "callbacks_of_2021"})
    sys.modules[callback.__module__] = module = types.ModuleType(callback.__module__)
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    saved = {
        "epoch": 3,
        "global_step": 1234,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": trained.state_dict(),
        "callbacks": {callback: {"best_model_score": torch.tensor(0.1)}},
    }
    torch.save(saved, tmp_path / "last.ckpt")
    del sys.modules[callback.__module__]  # nobody who loads the file has that code
    pipe = FacePipeline.from_pretrained(
        tmp_path / "last.ckpt", config={"target": case["target"], "params": case["params"]}, device="cpu"
    )
    style = torch.stack([style.codes for style in pipe.read_style(tensors["image"], labels)])
    assert_close(style, tensors["context"])
    model, y = pipe.model, mask_of(tensors)
    z = sample(
        lambda x, t: model.apply_model(x, t, {"context": style, "y": y}),
        tensors["x_T"],
        model.schedule,
        steps=10,
    )
    assert_close(z, tensors["out"], SAMPLED)
    assert callback.__module__ not in sys.modules


def assert_decoded(model, z: torch.Tensor, expected_z: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare decoded images where both latents have the same codebook entries, which must be nearly everywhere."""
    codebook = model.first_stage_model.quantize
    same = codebook.nearest(z) == codebook.nearest(expected_z)
    assert same.float().mean() > 0.99
    images = same.flatten(1).all(1)
    if images.any():
        assert_close(model.decode_first_stage(z)[images], expected[images], SAMPLED)
    assert_close(model.decode_first_stage(expected_z), expected, SAMPLED)


@pytest.mark.parametrize("name", ["loss", "loss_attn_bce", "loss_attn_l2"])
def test_loss_and_gradients(name: str) -> None:
    case, tensors = read(name)
    model, y = build(case).train(), mask_of(tensors)
    style = model.get_learned_conditioning(tensors["image"], y)
    loss, log = model.p_losses(tensors["z"], {"context": style, "y": y}, tensors["t"], noise=tensors["noise"])
    loss.backward()
    assert loss.item() == pytest.approx(case["total"], rel=1e-5)
    assert log["train/loss_simple"].item() == pytest.approx(case["loss"]["loss_simple"], rel=1e-5)
    if "loss_attn" in case["loss"]:
        assert log["train/loss_attn"].item() == pytest.approx(case["loss"]["loss_attn"], rel=1e-5)
    parameters = dict(model.named_parameters())
    largest = max(case["grad_norms"].values())
    for key, expected in case["grad_norms"].items():
        grad = parameters[key].grad
        norm = 0.0 if grad is None else grad.norm().item()
        # A gradient that is zero in exact arithmetic was recorded as rounding noise.
        assert norm == pytest.approx(expected, rel=1e-3, abs=1e-7 * largest), key


def test_schedule() -> None:
    tensors = load_file(FOLDER / "schedule.safetensors")
    buffers = NoiseSchedule.scaled_linear(0.0015, 0.0195, 1000).buffers()
    assert buffers.keys() == tensors.keys()
    for name, expected in tensors.items():
        torch.testing.assert_close(buffers[name], expected, rtol=1e-6, atol=1e-9, msg=name)


def test_full_size_state_dict_has_the_published_keys_and_shapes() -> None:
    config = json.loads((FOLDER / "official_model_config.json").read_text())
    with torch.device("meta"):
        model = instantiate_from_config(config)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    recorded = json.loads((FOLDER / "state_dict_official.json").read_text())
    assert len(recorded) == 1879
    assert shapes == recorded


@pytest.mark.slow
@pytest.mark.skipif(
    not FULL_SIZE.is_dir(), reason=f"the full-size case is not at {FULL_SIZE}; GOLDEN names its folder"
)
def test_full_size() -> None:
    expected = load_file(FULL_SIZE / "official_full.safetensors")
    config = json.loads((FOLDER / "official_model_config.json").read_text())
    model = fill(instantiate_from_config(config)).eval()
    image = np.random.default_rng(200).standard_normal((1, 3, 256, 256), dtype=np.float32)
    label = np.random.default_rng(202).integers(0, 19, (1, 16, 16)).repeat(16, 1).repeat(16, 2)
    x = torch.from_numpy(np.random.default_rng(203).standard_normal((1, 3, 64, 64), dtype=np.float32))
    image_tensor, y = torch.from_numpy(image).clamp(-1, 1), one_hot(torch.from_numpy(label), 19)
    with torch.no_grad():
        style = model.get_learned_conditioning(image_tensor, y)
        assert_close(style, expected["context"])
        out = model.apply_model(x, torch.tensor([417]), {"context": style, "y": y})
        assert_close(out, expected["out"])
        assert_close(model.encode_first_stage(image_tensor), expected["encoded"])
        assert_decoded(model, expected["encoded"], expected["encoded"], expected["decoded"])
