"""The house rules: style and types hold, imports point down, every config builds, the README's Python runs."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import main
from ldm.targets import resolve

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGS = sorted(
    file for file in (ROOT / "configs").glob("*/*.yaml") if file.parent.name not in ("evaluation", "ablation")
)


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_style_and_types(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# The rooms of ldm/, from the lowest: each imports only those before it.
ROOMS = [
    "arguments",
    "bundle",
    "closest_name",
    "atomic_files",
    "output_files",
    "out_of_memory",
    "signatures",
    "config_errors",
    "targets",
    "checkpoints",
    "data",
    "sampling",
    "metrics",
    "modules",
    "models",
    "training",
    "parsing",
    "pipeline",
    "evaluation",
    "studio",
    "cli",
    "__main__",
]


def imported_rooms(file: Path) -> set[str]:
    """Return the rooms of ldm/ that a file imports, inside functions too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("ldm.")}


def test_imports_point_down() -> None:
    for file in (ROOT / "ldm").glob("*/**/*.py"):
        room = file.relative_to(ROOT / "ldm").parts[0]
        for imported in imported_rooms(file):
            assert ROOMS.index(imported) <= ROOMS.index(room), f"{file} imports ldm.{imported}"
    for file in (ROOT / "ldm").glob("*.py"):
        below = ROOMS[: ROOMS.index(file.stem)] if file.stem != "__init__" else []
        assert imported_rooms(file) <= set(below), file


def test_imports_of_data_point_down() -> None:
    """Synthetic faces and datasets know neither each other nor what is served from them."""
    for inner, other in (("datasets", "synthetic"), ("synthetic", "datasets")):
        for file in (ROOT / "ldm/data" / inner).glob("*.py"):
            text = file.read_text()
            assert f"ldm.data.{other}" not in text and "ldm.data.datamodule" not in text, file


def bases(config: Path) -> list[str]:
    """Return the files that a config says it is given to main.py with."""
    said = re.search(r"main\.py -b (.+?) -t", config.read_text())
    assert said, f"{config.name} does not say how to run it"
    return said[1].split()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_builds_as_its_first_lines_say(config: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert str(config.relative_to(ROOT)) in bases(config)
    assert main.main(["-b", *bases(config), "--dry-run"]) == 0
    assert "total" in capsys.readouterr().out


def test_the_published_recipe_is_the_recorded_config() -> None:
    ours = OmegaConf.to_container(OmegaConf.load(ROOT / "configs/latent-diffusion/celebamask-hq.yaml").model)
    recorded = OmegaConf.to_container(OmegaConf.load(ROOT / "tests/golden/official_model_config.json"))
    ours["params"]["first_stage_config"]["params"].pop("ckpt_path")
    assert ours == recorded


@pytest.mark.parametrize("place", ["model", "unet_config", "cond_stage_config", "posthoc_ema"])
def test_the_published_recipe_explains_every_key(place: str) -> None:
    """Those that it leaves alone stand there as comments, with their defaults."""
    file = ROOT / "configs/latent-diffusion/celebamask-hq.yaml"
    whole = OmegaConf.to_container(
        OmegaConf.create(re.sub(r"(?m)^( *)# (?= *\w+:( |$))", r"\1", file.read_text()))
    )
    section = whole["lightning"]["callbacks"][place] if place == "posthoc_ema" else whole["model"]
    section = section["params"][place] if place.endswith("_config") else section
    known = inspect.signature(resolve(section["target"])).parameters
    assert section["params"].keys() == known.keys()
    written = OmegaConf.to_container(OmegaConf.load(file))
    if place == "model":
        for key in section["params"].keys() - written["model"]["params"].keys():
            assert section["params"][key] == known[key].default, key


def test_nothing_of_the_base_install_needs_torchvision() -> None:
    expected = (ROOT / "requirements.txt").read_text() + (ROOT / "setup.py").read_text().partition(
        "extras_require"
    )[0]
    assert "torchvision" not in expected
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[a-z-]+==[\d.]+(post\d+)?", pin) for pin in pins)
    assert "torch==2.13.0" in pins
    code = "import sys, main, ldm.pipeline, ldm.training.session; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_importing_the_pipeline_does_not_bring_what_only_training_needs() -> None:
    code = "import sys, ldm.pipeline; sys.exit('pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch) -> None:
    """On a real photo: each edit changes its regions, and no pixel outside its matte."""
    (code,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    for folder in ("assets", "checkpoints"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(code, known)
    original = known["photo"].file.pixels
    for name, least in {"recolored": 10, "swapped": 2, "sampled": 2}.items():
        with Image.open(tmp_path / f"{name}.png") as saved:
            changed = np.abs(np.asarray(saved).astype(int) - original).max(2)
        matte = known[name].matte
        assert changed[matte > 0.9].mean() > least and not changed[matte == 0].any()


def test_the_readme_fits_a_screen_and_a_terminal() -> None:
    lines = README.splitlines()
    assert len(lines) <= 250 and max(map(len, lines)) <= 110
