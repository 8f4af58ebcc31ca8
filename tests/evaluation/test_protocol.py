from pathlib import Path

import pytest

from ldm.data.labels import CELEBAMASK_HQ
from ldm.evaluation.protocol import load_protocol
from ldm.targets import ConfigError

PRESETS = Path(__file__).parents[2] / "configs/evaluation"


@pytest.mark.parametrize("preset", ["synthetic", "mini", "celebamask-hq", "folder"])
def test_presets_are_valid(preset: str) -> None:
    protocol = load_protocol(preset, PRESETS, {"data": "faces" if preset == "folder" else None})
    assert protocol.name == preset and protocol.samples >= 2
    for regions in [*protocol.swaps.values(), *protocol.random.values()]:
        CELEBAMASK_HQ.indices(regions)
    assert (PRESETS / f"{preset}.yaml").read_text().startswith("#")
    assert {file.stem for file in PRESETS.glob("*.yaml")} == {"synthetic", "mini", "celebamask-hq", "folder"}


def test_published_preset() -> None:
    protocol = load_protocol("celebamask-hq", PRESETS, {})
    assert (protocol.first, protocol.last, protocol.samples) == (28000, 29999, 10)
    assert protocol.sampling["solver"] == "ddim" and protocol.sampling["steps"] == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: faces\nsampels: 3", "unknown setting 'sampels'; did you mean .samples"),
        ("data: synthetic", "needs first and last"),
        ("data: faces\nfirst: 4\nlast: 3", "first 4 and last 3"),
        ("data: faces\nsamples: 0", "samples must be at least 1, got 0"),
        ("data: faces\nsampling: {solver: dim}", "unknown solver 'dim'; available: ddim"),
        ("data: faces\nsampling: {seed: [1, 2]}", "sampling.seed must be one integer"),
        ("first: 3", "data is missing"),
        ("data: ???", "data is missing"),
        ("data: faces\nsamples: many", "samples must be an integer, got 'many'"),
        ("data: faces\nfirst: 0.5", "first must be an integer, got 0.5"),
        ("data: faces\nsize: [64]", r"size must be a positive integer or .*, got \[64\]"),
        ("data: faces\nsampling: 20", "sampling must be options .*, got 20"),
        ("data: faces\nsampling: {steps: many}", "steps must be an integer or None, got 'many'"),
        (
            "data: faces\nswaps: {a: hair}",
            r"swaps: a must be a list of regions, such as \[hair\], got 'hair'",
        ),
        ("data: faces\nrandom: [hair]", "random must map names to lists of regions"),
        ("data: [a, b]", "data must be a folder or synthetic"),
        ("data: [", "is not YAML"),
    ],
)
def test_invalid_protocols(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_protocol(path, PRESETS, {})


def test_sizes_are_pairs_and_empty_sections_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: faces\nsize: 128\nsampling:\nrandom:\n")
    protocol = load_protocol(path, PRESETS, {"sampling": {"seed": 3}})
    assert protocol.size == (128, 128) and protocol.random == {} and protocol.sampling == {"seed": 3}
    resolved = {"seed": 3, "solver": "dpmpp_2m", "steps": 10, "spacing": "logsnr"}
    assert protocol.resolved_sampling == resolved


def test_unknown_presets_list_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="available: celebamask-hq, folder, mini, synthetic"):
        load_protocol("celeba", PRESETS, {})


def test_overriding_single_sampling_options() -> None:
    sampling = load_protocol("synthetic", PRESETS, {}).sampling
    changed = load_protocol("synthetic", PRESETS, {"sampling": {"guidance": 1.5}}).sampling
    assert changed == {**sampling, "guidance": 1.5} != sampling
    with pytest.raises(ValueError, match="guidanse"):
        load_protocol("synthetic", PRESETS, {"sampling": {"guidanse": 1.5}})


def test_order_of_unipc_is_recorded() -> None:
    sampling = {"solver": "unipc", "steps": 10}
    resolved = load_protocol("mini", PRESETS, {"sampling": sampling}).resolved_sampling
    assert resolved["order"] == 2
