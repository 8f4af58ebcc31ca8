from pathlib import Path

import pytest

from ldm.data.labels import CELEBAMASK_HQ
from ldm.evaluation.protocol import load_protocol
from ldm.targets import ConfigError

PRESETS = Path(__file__).parents[2] / "configs/evaluation"


@pytest.mark.parametrize("preset", ["synthetic", "mini", "celebamask-hq", "folder"])
def test_every_preset_is_a_protocol(preset: str) -> None:
    protocol = load_protocol(preset, PRESETS, {"data": "faces" if preset == "folder" else None})
    assert protocol.name == preset and protocol.samples >= 2
    for regions in [*protocol.swaps.values(), *protocol.random.values()]:
        CELEBAMASK_HQ.indices(regions)
    assert (PRESETS / f"{preset}.yaml").read_text().startswith("#")
    assert {file.stem for file in PRESETS.glob("*.yaml")} == {"synthetic", "mini", "celebamask-hq", "folder"}


def test_the_published_preset_is_what_is_published() -> None:
    protocol = load_protocol("celebamask-hq", PRESETS, {})
    assert (protocol.first, protocol.last, protocol.samples) == (28000, 29999, 10)
    assert protocol.sampling["solver"] == "ddim" and protocol.sampling["steps"] == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: faces\nsampels: 3", "unknown setting 'sampels'; did you mean samples"),
        ("data: synthetic", "give first and last"),
        ("data: faces\nfirst: 4\nlast: 3", "first is 4, last is 3"),
        ("data: faces\nsamples: 0", "samples is 0"),
        ("data: faces\nsampling: {solver: dim}", "unknown solver 'dim'; available: ddim"),
        ("data: faces\nsampling: {seed: [1, 2]}", "sampling.seed is a list"),
        ("first: 3", "names no data"),
        ("data: ???", "names no data"),
        ("data: faces\nsamples: many", "wrong kind"),
        ("data: [", "is not YAML"),
    ],
)
def test_what_cannot_be_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        load_protocol(path, PRESETS, {})


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="there are celebamask-hq, folder, mini, synthetic"):
        load_protocol("celeba", PRESETS, {})


def test_single_options_of_sampling_are_replaced() -> None:
    sampling = load_protocol("synthetic", PRESETS, {}).sampling
    changed = load_protocol("synthetic", PRESETS, {"sampling": {"guidance": 1.5}}).sampling
    assert changed == {**sampling, "guidance": 1.5} != sampling
    with pytest.raises(ValueError, match="guidanse"):
        load_protocol("synthetic", PRESETS, {"sampling": {"guidanse": 1.5}})
