"""The wheel: built, installed in an environment of its own, used outside of the checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import ldm
from ldm.bundle import ROOT, find_config

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def call(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_bundled_configs_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    diffusion = ROOT / "configs/latent-diffusion/faces-256.yaml"
    for name in (
        "faces-256.yaml",
        "latent-diffusion/faces-256.yaml",
        "configs/latent-diffusion/faces-256.yaml",
    ):
        assert find_config(Path(name)) == diffusion
    assert find_config(Path("vq-f4.yaml")) == ROOT / "configs/autoencoder/vq-f4.yaml"
    assert find_config(Path("nowhere.yaml")) == Path("nowhere.yaml")
    own = tmp_path / "faces-256.yaml"
    own.write_text("model: {}")
    assert find_config(Path("faces-256.yaml")) == Path("faces-256.yaml")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tracked files, as `pip wheel .` does in a fresh clone."""
    place = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    call(*pip, "--wheel-dir", place, place / "source", folder=place)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of the commands of an environment with the wheel and this one's dependencies."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin/python"
    call(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel,
        folder=place,
    )
    (site,) = place.glob("lib/python*/site-packages")
    # A .pth file of the other folder, such as that of an editable install, is not read through this one.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    yield place / "bin"


@pytest.mark.slow
def test_wheel_is_complete(wheel: Path) -> None:
    assert wheel.name == f"sca_dm-{ldm.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 100e6


@pytest.mark.slow
def test_wheel_edits_a_photo(installed: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "assets/photos/astronaut.jpg", tmp_path / "me.jpg")
    code = "import ldm, importlib.metadata as m; print(ldm.__file__, ldm.__version__, m.version('sca-dm'))"
    file, *versions = call(installed / "python", "-c", code, folder=tmp_path).split()
    assert Path(file).is_relative_to(installed.parent) and versions == [ldm.__version__] * 2
    edit = ("photo", "me.jpg", "--color", "hair=auburn", "--steps", "4", "--out", "edited.jpg")
    call(installed / "sca-dm", *edit, folder=tmp_path)
    assert (tmp_path / "edited.jpg").read_bytes() != (tmp_path / "me.jpg").read_bytes()


@pytest.mark.slow
def test_wheel_trains(installed: Path, tmp_path: Path) -> None:
    shown = call(installed / "sca-dm", "train", "-b", "faces-256.yaml", "--dry-run", folder=tmp_path)
    assert f"ckpt_path: {installed.parent}" in shown and "total" in shown
    start = (
        "model.params.ckpt_path=checkpoints/demo",
        "model.params.first_stage_config.params.ckpt_path=null",
    )
    small = (
        "data.params.batch_size=1",
        "lightning.trainer.max_steps=1",
        "lightning.trainer.limit_val_batches=0",
    )
    call(installed / "sca-dm", "train", "-b", "synthetic-64.yaml", "-t", *start, *small, folder=tmp_path)
    assert list(tmp_path.glob("runs/*/checkpoints/last.ckpt"))


@pytest.mark.slow
def test_wheel_serves_the_studio(installed: Path, tmp_path: Path) -> None:
    command = [installed / "sca-dm", "studio"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as studio:
        try:
            assert studio.stdout is not None
            address = re.findall(r"http://\S+", studio.stdout.readline())[0]
            with urllib.request.urlopen(address) as page:
                assert page.status == 200
        finally:
            studio.terminate()


def test_changelog_has_the_version() -> None:
    assert f"\n## [{ldm.__version__}] - " in (ROOT / "CHANGELOG.md").read_text()
