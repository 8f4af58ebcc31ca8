"""`precision: auto`: the measurement decides, and emulated bfloat16 is not even measured."""

import time
from pathlib import Path

import pytest
import torch

from ldm.models.segmenter import EfficientFaceParser
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


@pytest.mark.parametrize("measure", ["bfloat16_is_faster", "trains_faster_in_bfloat16"])
def test_the_measurement_leaves_the_model_and_the_random_state_as_they_were(
    measure: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    precision.CPUINFO.write_text("flags : avx512_bf16")
    model = small.sensitive(small.diffusion(unet={"dropout": 0.5})).train()
    assert_unchanged_by(getattr(model, measure), model, model.unet, model.unet.out)


def test_the_face_parser_is_measured_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    precision.CPUINFO.write_text("flags : avx512_bf16")
    parser = EfficientFaceParser(widths=(8, 8, 8, 8, 8)).train()
    last = [module for module in parser.network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    assert_unchanged_by(
        lambda: trainer_precision({"precision": "auto", "accelerator": "cpu"}, parser, 64),
        parser,
        parser.network,
        last,
    )


def assert_unchanged_by(measure, model, network, layer) -> None:
    """Measure both precisions, on a batch of one on the CPU, and compare weights, gradients, mode and random state."""
    calls = []
    hook = layer.register_forward_hook(lambda _, inputs, out: calls.append((in_bfloat16(), len(out))))
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    measure()
    hook.remove()
    assert set(calls) == {(False, 1), (True, 1)}
    assert torch.equal(torch.get_rng_state(), state) and network.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_float32_that_does_not_fit_into_the_memory_is_slower(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    precision.CPUINFO.write_text("flags : avx512_bf16")

    def step() -> None:
        if not in_bfloat16():
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert bfloat16_is_faster(step, CPU)


def test_a_model_without_a_measurement_and_several_processes_train_in_float32() -> None:
    first_stage = instantiate_from_config(small.first_stage())
    assert trainer_precision({"precision": "auto"}, first_stage) == "32-true"
    model = small.sensitive(small.diffusion())
    assert trainer_precision({"precision": "auto", "accelerator": "cpu", "devices": 2}, model) == "32-true"
    assert trainer_precision({"precision": "bf16-mixed"}, model) == "bf16-mixed"
