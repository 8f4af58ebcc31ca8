"""`precision: auto`: the measurement decides, and emulated bfloat16 is not even measured."""

import time
from pathlib import Path

import pytest
import torch

from ldm.modules import precision
from ldm.modules.precision import bfloat16_is_faster, native_bfloat16
from ldm.pipeline import FacePipeline
from ldm.targets import instantiate_from_config
from ldm.training.precision import trainer_precision
from tests import small

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", True),
        ("flags\t\t: avx512f amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
    ],
)
def test_native_bfloat16_is_read_from_the_flags_of_the_cpu(
    line: str, native: bool, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    assert not native_bfloat16(CPU)  # no such file on this system
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert native_bfloat16(CPU) is native


def in_bfloat16() -> bool:
    return torch.is_autocast_enabled("cpu")


def work(milliseconds: int) -> None:
    end = time.process_time() + milliseconds / 1000
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(("times", "faster"), [((20, 4), True), ((4, 20), False), ((10, 10), False)])
def test_the_faster_precision_is_chosen_and_a_tie_is_float32(
    times: tuple[int, int], faster: bool, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    precision.CPUINFO.write_text("flags : avx512_bf16")
    assert bfloat16_is_faster(lambda: work(times[in_bfloat16()]), CPU) is faster


def test_without_native_bfloat16_nothing_is_measured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    precision.CPUINFO.write_text("flags : avx2")
    model = small.sensitive(small.diffusion())
    model.unet.denoise = None  # cannot be called
    assert FacePipeline(model, None, (16, 16), precision="auto").sampler.dtype == torch.float32
    assert trainer_precision({"precision": "auto"}, model) == "32-true"


@pytest.mark.parametrize("train", [False, True])
def test_the_measurement_leaves_the_model_and_the_random_state_as_they_were(
    train: bool, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    precision.CPUINFO.write_text("flags : avx512_bf16")
    model, calls = small.sensitive(small.diffusion(unet={"dropout": 0.5})).train(), []
    model.unet.out.register_forward_hook(lambda *_: calls.append(in_bfloat16()))
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    model.bfloat16_is_faster(train)
    assert set(calls) == {False, True}
    assert torch.equal(torch.get_rng_state(), state) and model.unet.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_a_measurement_and_several_processes_train_in_float32() -> None:
    first_stage = instantiate_from_config(small.first_stage())
    assert trainer_precision({"precision": "auto"}, first_stage) == "32-true"
    model = small.sensitive(small.diffusion())
    assert trainer_precision({"precision": "auto", "accelerator": "cpu", "devices": 2}, model) == "32-true"
    assert trainer_precision({"precision": "bf16-mixed"}, model) == "bf16-mixed"
