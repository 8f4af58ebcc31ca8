"""The Python of CONTRIBUTING.md and docs/editing.md runs."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ldm.cli import main
from ldm.data.datamodule import DataModuleFromConfig
from ldm.data.images import load_image
from ldm.data.labels import CELEBAMASK_HQ
from ldm.sampling import sample
from tests.sampling.test_multistep import SCHEDULE, mixture, noise

ROOT = Path(__file__).parents[1]


def python_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.+?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    known: dict[str, Any] = {"__name__": "examples"}
    for code in python_of("CONTRIBUTING.md"):
        exec(code, known)
    return known


def test_example_dataset_can_be_trained_on(examples: dict[str, Any], monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Squares", examples["Squares"], raising=False)
    config = {"target": f"{__name__}.Squares", "params": {"size": 16, "count": 4}}
    batch = next(iter(DataModuleFromConfig(2, train=config).train_dataloader()))
    assert batch["image"].shape == (2, 3, 16, 16) and batch["labels"].shape == (2, 16, 16)
    skin = examples["Squares"](16, 4)[1]["labels"] == CELEBAMASK_HQ.index("skin")
    assert skin.sum() == 64 and skin[1:9, 1:9].all()


def test_example_solver_is_ddim(examples: dict[str, Any]) -> None:
    """Euler's method in sigma is DDIM."""
    timesteps = SCHEDULE.timesteps(20)[::-1]
    found = examples["euler"](mixture(), noise(), SCHEDULE, [*timesteps, 0])
    assert torch.allclose(found, sample(mixture(), noise(), SCHEDULE, steps=20), atol=1e-9)


def test_example_metric(examples: dict[str, Any]) -> None:
    black, gray = torch.full((2, 3, 4, 4), -1.0), torch.zeros(2, 3, 4, 4)
    assert examples["mean_color_error"](black, gray).tolist() == [0.5, 0.5]


def test_the_python_of_the_editing_page_runs(tmp_path: Path, monkeypatch) -> None:
    (code,) = python_of("docs/editing.md")
    for folder in ("assets", "checkpoints"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(code, known)
    assert known["sampled"].shape == (3, 64, 64)
    changed = (load_image(tmp_path / "edited.png") - known["image"]).abs().max(0).values
    edited = torch.isin(known["labels"].long(), torch.tensor(CELEBAMASK_HQ.indices(["hair", "skin"])))
    assert changed[edited].mean() > 0.1 and changed[~edited].median() < 0.01
    codes = known["pipe"].load_style("style.style").codes
    assert torch.equal(codes, known["style"].codes)


def test_the_architecture_page_names_every_package_and_script() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    packages = {f"ldm/{path.name}" for path in (ROOT / "ldm").iterdir() if (path / "__init__.py").is_file()}
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")} - {
        "scripts/dataset_export.py"
    }
    missing = {name for name in packages | scripts if f"`{name}`" not in page}
    assert not missing
    named = set(re.findall(r"`((?:ldm|scripts)/[\w/.]+)`", page))
    assert all((ROOT / name).exists() for name in named)


@pytest.mark.parametrize("page", ["README.md", "docs/model_zoo.md"])
def test_tables_of_weights_agree_with_the_files(page: str) -> None:
    """Every folder with weights has a row, with its size; the table may precede the weights, with an empty size."""
    rows = re.findall(r"^\| `((?:demo|faces)[\w/]*)` \|(.+)\|$", (ROOT / page).read_text(), re.MULTILINE)
    listed = {folder: re.search(r"([\d.]+) MB", row) for folder, row in rows}
    for file in (ROOT / "checkpoints").glob("**/model.safetensors*"):
        folder = file.parent.relative_to(ROOT / "checkpoints").as_posix()
        if folder.startswith(("demo", "faces")):
            parts = file.parent.glob("model.safetensors*")
            size = listed[folder]
            assert size is not None, f"{page} lacks the size of {folder}"
            assert size[1] == f"{sum(part.stat().st_size for part in parts) / 1e6:.1f}"


def test_the_json_of_the_task_faces_is_the_documented_one(capsys) -> None:
    text = (ROOT / "docs/photos.md").read_text()
    (documented,) = json.loads(re.search(r"```json\n(.+?)```", text, re.DOTALL)[1])
    assert main(["faces", str(ROOT / "assets/photos/astronaut.jpg"), "--device", "cpu"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found.keys() == documented.keys() == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert found.pop("center") == pytest.approx(documented.pop("center"), abs=0.5)
    assert found == pytest.approx(documented, abs=0.5)


PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_prose_have_at_most_110_characters(page: Path) -> None:
    """Rows of tables cannot be broken."""
    lines = enumerate(page.read_text().splitlines(), 1)
    long = [number for number, line in lines if len(line) > 110 and not line.startswith("|")]
    assert not long, f"{page.name}: lines {long} are longer than 110 characters"
