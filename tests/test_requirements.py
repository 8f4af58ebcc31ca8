"""Pinned versions: constraints.txt is complete and current, and the requirements agree with setup.py."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.update_constraints import constraints, requirements_of

ROOT = Path(__file__).parents[1]


def pins(text: str) -> dict[str, str]:
    return dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))


def test_constraints_are_the_installed_versions() -> None:
    written, installed = pins((ROOT / "constraints.txt").read_text()), pins(constraints())
    assert written == installed, "constraints.txt is stale; run python scripts/update_constraints.py"


def test_constraints_name_no_local_version_or_file() -> None:
    for name, version in pins((ROOT / "constraints.txt").read_text()).items():
        assert re.fullmatch(r"[a-z0-9-]+", name) and re.fullmatch(r"[\w.]+", version), f"{name}=={version}"


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_within_the_ranges_of_setup_py(file: str) -> None:
    quoted = re.findall(r'"([a-z][\w.-]*[<>=]=?[\d.,<>=]+)"', (ROOT / "setup.py").read_text())
    ranges = {canonicalize_name(one.name): one.specifier for one in map(Requirement, quoted)}
    for requirement in requirements_of(ROOT / file):
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        allowed = ranges.get(canonicalize_name(requirement.name))
        assert allowed is not None, f"setup.py lacks {requirement.name}"
        assert allowed.contains(pin.version), f"{requirement} is not in {allowed}"


def test_conda_environment_has_the_pinned_requirements() -> None:
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    assert environment["name"] == "diffusion"
    assert {"-c constraints.txt", "-r requirements-dev.txt"} <= set(environment["dependencies"][-1]["pip"])


def test_an_extra_of_a_requirement_is_followed(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("mkdocstrings==1.0.8\n")
    (tmp_path / "extra.txt").write_text("mkdocstrings[python]==1.0.8  # with its handler\n")
    assert "mkdocstrings-python" not in pins(constraints(tmp_path / "plain.txt"))
    assert "mkdocstrings-python" in pins(constraints(tmp_path / "extra.txt"))
