"""StyleCode: mixing, saving, and what does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ldm.data.labels import CELEBAMASK_HQ, CITYSCAPES_TRAIN
from ldm.pipeline.style_code import FORMAT, StyleCode, StyleError, _checksum, load_style

HAIR, LIP = CELEBAMASK_HQ.indices(["hair", "u_lip"])


def code(seed: int, encoder: str = "e", size: int = 8) -> StyleCode:
    generator = torch.Generator().manual_seed(seed)
    return StyleCode(torch.randn(19, size, generator=generator), CELEBAMASK_HQ, encoder)


def test_swap_takes_its_regions_alone() -> None:
    a, b = code(0), code(1)
    mixed = a.swap(b, ["hair", "u_lip"])
    others = [r for r in range(19) if r not in (HAIR, LIP)]
    assert torch.equal(mixed.codes[[HAIR, LIP]], b.codes[[HAIR, LIP]])
    assert torch.equal(mixed.codes[others], a.codes[others])
    assert torch.equal(a.swap(b).codes, b.codes)
    assert torch.equal(mixed["hair"], b["hair"])


def test_lerp_is_linear() -> None:
    a, b = code(0), code(1)
    half = a.lerp(b, 0.5, ["hair"])
    torch.testing.assert_close(half["hair"], (a["hair"] + b["hair"]) / 2)
    assert torch.equal(half["skin"], a["skin"])
    assert torch.equal(a.lerp(b, 0).codes, a.codes) and torch.equal(a.lerp(b, 1).codes, b.codes)


def test_compose_takes_each_region_from_its_own_source() -> None:
    a, b, c = code(0), code(1), code(2)
    mixed = a.compose({"hair": b, "skin": c})
    assert torch.equal(mixed["hair"], b["hair"]) and torch.equal(mixed["skin"], c["skin"])
    assert torch.equal(mixed.codes, a.swap(b, ["hair"]).swap(c, ["skin"]).codes)


def test_a_code_is_immutable() -> None:
    codes = torch.zeros(19, 8)
    style = StyleCode(codes, CELEBAMASK_HQ, "e")
    codes += 1
    style["hair"].add_(1)
    style.swap(code(1))
    assert not style.codes.any()
    with pytest.raises(AttributeError):
        style.codes = codes  # type: ignore[misc]


def test_a_file_comes_back(tmp_path: Path) -> None:
    style = code(0)
    style.save(tmp_path / "anna.style")
    again = load_style(tmp_path / "anna.style", CELEBAMASK_HQ)
    assert torch.equal(again.codes, style.codes)
    assert (again.encoder_fingerprint, again.label_set) == (style.encoder_fingerprint, style.label_set)
    assert [path.name for path in tmp_path.iterdir()] == ["anna.style"]


def test_what_is_not_a_style_is_said(tmp_path: Path) -> None:
    with pytest.raises(StyleError, match="cannot be read"):
        load_style(tmp_path / "none", CELEBAMASK_HQ)
    (tmp_path / "text").write_text("hair")
    with pytest.raises(StyleError, match="cannot be read"):
        load_style(tmp_path / "text", CELEBAMASK_HQ)
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights")
    with pytest.raises(StyleError, match="not a style code"):
        load_style(tmp_path / "weights", CELEBAMASK_HQ)
    code(0).save(tmp_path / "face")
    with pytest.raises(StyleError, match=r"expected the regions of Cityscapes.*CelebAMask-HQ"):
        load_style(tmp_path / "face", CITYSCAPES_TRAIN)


def test_codes_that_do_not_fit() -> None:
    for other in (code(1, "another"), code(1, size=4)):
        with pytest.raises(StyleError, match="codes of another model are incompatible"):
            code(0).swap(other)
    with pytest.raises(StyleError, match="must have shape \\(19 regions"):
        StyleCode(torch.zeros(18, 8), CELEBAMASK_HQ, "e")
    with pytest.raises(StyleError, match="non-finite"):
        StyleCode(torch.full((19, 8), torch.nan), CELEBAMASK_HQ, "e")
    with pytest.raises(ValueError, match="did you mean one of: hair"):
        code(0).swap(code(1), ["hare"])


def test_a_damaged_style_file_is_an_error_that_names_it(tmp_path) -> None:
    codes, file = code(0).codes, tmp_path / "anna.style"
    code(0).save(file)
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StyleError, match=r"anna\.style: damaged, its checksum"):
        load_style(file, CELEBAMASK_HQ)
    for wrong in (codes[:18].clone(), codes.int(), codes * float("nan")):
        facts = {"format": FORMAT, "regions": json.dumps(CELEBAMASK_HQ.regions), "checksum": _checksum(wrong)}
        save_file({"codes": wrong}, file, facts)
        with pytest.raises(StyleError, match=r"anna\.style: codes"):
            load_style(file, CELEBAMASK_HQ)
