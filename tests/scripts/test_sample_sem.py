"""sample_sem.py as a person runs it: real processes on a small model and synthetic faces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.checkpoints.io import write_checkpoint
from ldm.data.images import load_image, to_uint8
from ldm.pipeline import FacePipeline
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
        ("swap", ["--style", "next", "--regions", "hair, u_lip"], ["000000.png", "000003.png"]),
        ("random", ["--regions", "hair", "--samples", 2], ["000000_seed0.png", "000003_seed1.png"]),
        ("noise", ["--samples", 2, "--seed", 7], ["000000_seed7.png", "000003_seed8.png"]),
        ("interpolate", ["--style", "000002", "--frames", 3], ["000000_00.png", "000003_02.png"]),
        (
            "interpolate",
            ["--style", "next", "--frames", 3, "--regions", "hair", "--lock", "--animate", "gif"],
            ["000000_00.png", "000003.gif"],
        ),
        (
            "interpolate",
            ["--style", "next", "--frames", 2, "--animate", "webp"],
            ["000000_01.png", "000003.webp"],
        ),
        (
            "swap",
            ["--style", "next", "--regions", "hair", "--lock", "--invert"],
            ["000000.png", "000003.png"],
        ),
        ("compose", ["--part", "hair, skin = next", "--part", "u_lip=000002"], ["000000.png", "000003.png"]),
        ("reshape", ["--shape", "next", "--lock"], ["000000.png", "000003.png"]),
        ("reconstruct", ["--invert"], ["000000.png", "scores.json"]),
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
    assert "4 images in" in done.stdout
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


def test_a_locked_swap_keeps_every_other_pixel(place: Path) -> None:
    code, out = sample(place, "swap", "--style", "next", "--regions", "hair", "--lock")
    assert code == 0
    with Image.open(place / "faces/labels/000001.png") as mask:
        labels = np.asarray(mask.resize((16, 16), Image.Resampling.NEAREST))
    pipe = FacePipeline.from_pretrained(place / "weights", device="cpu")
    photo = load_image(place / "faces/images/000001.png", pipe.size)
    hair = torch.from_numpy(labels == pipe.label_set.index("hair"))
    far = torch.nn.functional.max_pool2d(hair[None].float(), 3, 1, 1)[0] == 0
    result = pixels(out / "000001.png")
    assert np.array_equal(result[far.numpy()], to_uint8(photo)[far.numpy()])
    assert not np.array_equal(result[hair.numpy()], to_uint8(photo)[hair.numpy()])


def test_a_style_file_is_the_face_it_comes_from(place: Path) -> None:
    styles = place / "styles"
    faces = ["--data", str(place / "faces"), "--names", "000001", "--device", "cpu"]
    assert (
        sample_sem.main(["style", *faces, "--checkpoint", str(place / "weights"), "--out", str(styles)]) == 0
    )
    assert [path.name for path in styles.iterdir()] == ["000001.style"]
    _, by_file = sample(place, "swap", "--style", styles / "000001.style", "--names", "000000")
    _, by_name = sample(place, "swap", "--style", "000001", "--names", "000000")
    assert np.array_equal(pixels(by_file / "000000.png"), pixels(by_name / "000000.png"))


def test_an_edited_mask_changes_the_face_only_there(place: Path, tmp_path: Path) -> None:
    with Image.open(place / "faces/labels/000000.png") as mask:
        labels = np.array(mask)
    labels[:8, :8] = 14  # a hat in the corner
    Image.fromarray(labels).save(tmp_path / "new.png")
    _, out = sample(place, "reshape", "--shape", tmp_path / "new.png", "--lock", "--names", "000000")
    photo = to_uint8(load_image(place / "faces/images/000000.png", 16))
    changed = (pixels(out / "000000.png") != photo).any(2)
    assert changed[:4, :4].any() and not changed[6:].any() and not changed[:, 6:].any()


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "ldm"], ["sca-dm"]], ids=["module", "entry point"]
)
def test_the_installed_commands_are_the_same(command: list[str], tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*command, "swap", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: sca-dm swap"), done.stderr


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


def test_a_broken_neighbor_is_passed_over_and_a_lone_face_has_none(
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
    assert "is the only usable face" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("swap", ["--style", "next", "--regions", "hare"], "did you mean one of: hair"),
        ("swap", ["--style", "nobody"], "no face of that name in the folder"),
        ("noise", ["--solver", "dimm"], "available: ddim"),
        ("noise", ["--guidance", "hair=much"], "must be a number, or by region such as hair=2"),
        ("noise", ["--guidance", "hare=2"], "did you mean one of: hair"),
        ("compose", ["--part", "hare=next"], "did you mean one of: hair"),
        ("swap", ["--style", "next", "--invert", "--solver", "unipc"], "inversion requires solver ddim"),
        ("swap", ["--style", "nobody.style"], "cannot be read as a style code"),
        ("noise", ["--steps", 2000], "steps must be in [1, 1000]"),
        ("noise", ["--guidance", "nan"], "guidance must be finite"),
        ("noise", ["--seed", 2**63], "seed must be in [0, 2^63"),
        ("noise", ["--checkpoint", "nowhere", "--precision", "float8"], "unknown precision 'float8'"),
        ("compose", ["--part", "hair=nobody"], "--part nobody: no face of that name"),
        (
            "reshape",
            ["--shape", "nobody"],
            "--shape nobody: no face of that name in the folder; use one of its names, or `next`, or a PNG",
        ),
        ("swap", ["--style", "000002", "--style-mask", "x.png"], "remove --style-mask"),
        ("noise", ["--names", "7-9"], "no face in that range"),
        ("noise", ["--checkpoint", "nowhere"], "there is no such file"),
        ("noise", ["--device", "toaster"], "got 'toaster'"),
        pytest.param(
            "noise",
            ["--device", "cuda"],
            "got 'cuda'",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_mistakes_are_one_sentence(place: Path, task: str, options: list, message: str, capsys) -> None:
    code, out = sample(place, task, *options)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and message in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("swap --data F --style next --style-mask M.png", "--style-mask requires an image"),
        ("swap --data F --style a.style --style-mask M.png", "--style-mask requires an image"),
        ("noise --data F --mask M.png", "--mask requires --image"),
        ("noise --image I.png --mask M.png --names 3", "--names selects faces of --data"),
        ("reshape --data F --shape new.bmp", "must be a PNG"),
    ],
)
def test_options_without_effect_are_mistakes(words: str, message: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        sample_sem.main([*words.split(), "--checkpoint", "W"])
    assert left.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
    ids=["python", "cpu", "cuda"],
)
def test_too_little_memory_is_one_sentence(place: Path, error: Exception, monkeypatch, capsys) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(FacePipeline, "__call__", full)
    assert sample(place, "noise")[0] == 2
    assert "out of memory with 8 images at once; lower --batch-size" in capsys.readouterr().err


def test_every_frame_and_every_part_has_a_column_of_its_own(place: Path) -> None:
    few = ("--data", place / "faces", "--names", "000000")
    _, out = sample(place, "interpolate", "--style", "next", "--frames", 103, "--steps", 1, faces=few)
    with Image.open(out / "overview.png") as overview:
        assert overview.width // 128 >= 103
    parts = ["--part", "hair=000001", "--part", "hair=000002"]
    _, out = sample(place, "compose", *parts, "--steps", 1, faces=few)
    with Image.open(out / "overview.png") as overview:
        assert (overview.width // 128, overview.height // 128) == (5, 1)


def test_an_inversion_has_no_variants(place: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        sample(place, "random", "--regions", "hair", "--invert")
    assert "unrecognized arguments: --invert" in capsys.readouterr().err


def test_help_comes_without_heavy_imports() -> None:
    code = "import sys; from ldm.cli import build_parser; build_parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr
