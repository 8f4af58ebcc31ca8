"""sample_sem.py as a person runs it: real processes on a small model and generated faces."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.checkpoint import write_checkpoint
from scripts import draw_faces, sample_sem
from tests import small

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, and faces of another size than the model's."""
    folder = tmp_path_factory.mktemp("sample")
    config = small.diffusion()
    model = small.sensitive(config)
    (folder / "weights").mkdir()
    write_checkpoint(folder / "weights", model.state_dict(), {"model": config})
    assert draw_faces.main([str(folder / "faces"), "--count", "4", "--size", "32"]) == 0
    return folder


def sample(place: Path, task: str, *options: object, faces: tuple[object, ...] = ()) -> tuple[int, Path]:
    """Run a task in this process and return its exit code and folder."""
    out = place / f"{task}-{abs(hash(options + faces))}"
    chosen = faces or ("--data", place / "faces")
    common = ["--checkpoint", place / "weights", "--out", out, "--steps", 2, "--device", "cpu"]
    return sample_sem.main([task, *map(str, [*common, *chosen, *options])]), out


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize(
    ("task", "options", "files"),
    [
        ("reconstruct", [], ["000000.png", "000003.png", "scores.json"]),
        ("swap", ["--style", "next", "--regions", "hair,u_lip"], ["000000.png", "000003.png"]),
        ("random", ["--regions", "hair", "--samples", 2], ["000000_seed0.png", "000003_seed1.png"]),
        ("noise", ["--samples", 2, "--seed", 7], ["000000_seed7.png", "000003_seed8.png"]),
        ("interpolate", ["--style", "000002", "--frames", 3], ["000000_00.png", "000003_02.png"]),
    ],
)
def test_every_task_writes_its_pictures(place: Path, task: str, options: list, files: list) -> None:
    code, out = sample(place, task, *options)
    assert code == 0
    for file in files:
        assert (out / file).is_file(), sorted(out.iterdir())
    assert pixels(out / files[0]).shape == (16, 16, 3)
    assert Image.open(out / "overview.png").width > 3 * 128


def test_a_whole_process_and_its_words(place: Path) -> None:
    command = [
        sys.executable,
        ROOT / "scripts" / "sample_sem.py",
        "reconstruct",
        "--steps",
        "2",
        "--device",
        "cpu",
    ]
    command += ["--checkpoint", place / "weights", "--data", place / "faces", "--out", place / "process"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "PSNR, mean of 4 faces: first stage alone" in done.stdout
    assert "4 pictures in" in done.stdout
    scores = json.loads((place / "process" / "scores.json").read_text())
    assert set(scores["faces"]) == {"000000", "000001", "000002", "000003"}


def test_a_face_is_the_same_alone_and_in_a_batch(place: Path) -> None:
    _, together = sample(place, "reconstruct", "--batch-size", 4)
    _, alone = sample(place, "reconstruct", "--batch-size", 1)
    _, single = sample(
        place,
        "reconstruct",
        faces=("--image", place / "faces/images/000002.png", "--mask", place / "faces/labels/000002.png"),
    )
    for other in (alone, single):  # rounding may fall to either side
        assert np.abs(pixels(together / "000002.png") - pixels(other / "000002.png")).max() <= 1


def test_interpolation_begins_with_the_own_style_and_ends_with_the_other(place: Path) -> None:
    _, frames = sample(place, "interpolate", "--style", "000001", "--regions", "hair", "--frames", 2)
    _, own = sample(place, "reconstruct")
    _, swapped = sample(place, "swap", "--style", "000001", "--regions", "hair")
    assert np.abs(pixels(frames / "000000_00.png") - pixels(own / "000000.png")).max() <= 1
    assert np.abs(pixels(frames / "000000_01.png") - pixels(swapped / "000000.png")).max() <= 1


def test_a_style_from_a_picture_and_its_mask(place: Path) -> None:
    files = ("--style", place / "faces/images/000001.png", "--style-mask", place / "faces/labels/000001.png")
    _, by_file = sample(place, "swap", *files)
    _, by_name = sample(place, "swap", "--style", "000001")
    assert np.array_equal(pixels(by_file / "000000.png"), pixels(by_name / "000000.png"))


def test_chosen_names_and_the_recipe_in_the_picture(place: Path) -> None:
    code, out = sample(place, "noise", "--names", "000003,1-2", "--samples", 1)
    assert code == 0
    assert sorted(p.name for p in out.glob("0*.png")) == [
        "000001_seed0.png",
        "000002_seed0.png",
        "000003_seed0.png",
    ]
    recipe = json.loads(Image.open(out / "000003_seed0.png").text["sca-dm"])
    assert recipe["task"] == "noise" and recipe["steps"] == "2"


def test_a_broken_file_does_not_cost_the_others(place: Path, tmp_path: Path, capsys) -> None:
    draw_faces.main([str(tmp_path / "faces"), "--count", "3", "--size", "32"])
    (tmp_path / "faces/images/000001.png").write_bytes(b"not a picture")
    code, out = sample(place, "reconstruct", "--overview", 2, faces=("--data", tmp_path / "faces"))
    assert code == 1
    assert sorted(p.name for p in out.glob("0*.png")) == ["000000.png", "000002.png"]
    assert "left out:" in capsys.readouterr().err


def test_a_broken_neighbour_is_passed_over_and_a_lone_face_has_none(
    place: Path, tmp_path: Path, capsys
) -> None:
    draw_faces.main([str(tmp_path / "faces"), "--count", "3", "--size", "32"])
    (tmp_path / "faces/images/000001.png").write_bytes(b"not a picture")
    code, out = sample(place, "swap", "--style", "next", faces=("--data", tmp_path / "faces"))
    assert code == 1 and sorted(p.name for p in out.glob("0*.png")) == ["000000.png", "000002.png"]
    _, named = sample(
        place, "swap", "--style", "000002", faces=("--data", tmp_path / "faces", "--names", "000000")
    )
    assert np.abs(pixels(out / "000000.png") - pixels(named / "000000.png")).max() <= 1
    lone = ("--image", place / "faces/images/000002.png", "--mask", place / "faces/labels/000002.png")
    capsys.readouterr()
    assert sample(place, "swap", "--style", "next", faces=lone)[0] == 2
    assert "is the only face" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("swap", ["--style", "next", "--regions", "hare"], "did you mean one of: hair"),
        ("swap", ["--style", "nobody"], "no face of that name in the folder"),
        ("noise", ["--solver", "dimm"], "there are ddim"),
        ("noise", ["--steps", 2000], "wanted 1 .. 1000"),
        ("noise", ["--names", "7-9"], "no face in that range"),
        ("noise", ["--checkpoint", "nowhere"], "there is no such file"),
        ("noise", ["--device", "toaster"], "'toaster' cannot be used here"),
        pytest.param(
            "noise",
            ["--device", "cuda"],
            "'cuda' cannot be used here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_mistakes_are_one_sentence(place: Path, task: str, options: list, message: str, capsys) -> None:
    code, out = sample(place, task, *options)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and message in said
    assert not out.exists()


def test_help_comes_without_heavy_imports() -> None:
    code = "import sys; from scripts.sample_sem import build_parser; build_parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr
