"""The tasks `photo` and `faces`, in this process; painted label maps are the photos."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.cli import main
from ldm.cli.photo_files import is_finished, named_photos, output_files
from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing import FaceParser
from ldm.pipeline import PhotoEditor


@pytest.fixture(autouse=True)
def patched(editor: PhotoEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line load a parser that knows painted faces by their colors."""
    monkeypatch.setattr(FaceParser, "from_pretrained", lambda *_, **__: editor.parser)


@pytest.fixture
def folder(file: Path, tmp_path: Path) -> Path:
    """Two photos with a face, and one without."""
    photos = tmp_path / "photos"
    photos.mkdir()
    with Image.open(file) as photo:
        photo.save(photos / "a.jpg", quality=95)
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "b.webp", lossless=True)
    Image.new("RGB", (300, 200), CELEBAMASK_HQ.palette[0]).save(photos / "empty.png")
    return photos


def photo_task(*words: object) -> int:
    return main(["photo", "--device", "cpu", *map(str, words)])


def test_a_photo_is_edited_by_color_and_by_style(file: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "edited.png"
    assert photo_task(file, "--color", "hair=auburn", "-o", out) == 0
    with Image.open(out) as saved:
        recipe = json.loads(saved.info["sca-dm"])
        assert saved.size == (900, 600)
    assert recipe["regions"] == ["hair"] and recipe["options"] == {}
    style = ["--style", file, "--regions", "hair", "--steps", 2, "--detail", "keep"]
    assert photo_task(file, *style, "-o", out) == 0
    with Image.open(out) as saved, Image.open(file) as own:
        assert (np.asarray(saved) == np.asarray(own)).all()
    assert photo_task(file, "--color", "hat=red", "-o", out) == 2
    assert "no region 'hat'" in capsys.readouterr().err


def test_a_folder_goes_on_after_a_photo_without_a_face_and_resumes(
    folder: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "edited"
    words = [folder, "--color", "hair=auburn", "--color", "u_lip,l_lip=crimson", "--out", out]
    assert photo_task(*words) == 1
    printed = capsys.readouterr()
    assert "2 of 3" in printed.out and "left out:" in printed.err and "empty.png" in printed.err
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.webp"]
    (out / "b.webp").unlink()
    before = (out / "a.jpg").stat().st_mtime_ns
    assert photo_task(*words) == 1
    assert (out / "a.jpg").stat().st_mtime_ns == before and (out / "b.webp").is_file()
    assert "a.jpg: finished" in capsys.readouterr().out
    assert photo_task(*words, "--strength", 0.5) == 1
    assert (out / "a.jpg").stat().st_mtime_ns != before
    assert photo_task(folder / "empty.png", "--color", "hair=auburn", "--out", out) == 2


def test_a_changed_photo_or_a_damaged_result_is_edited_again(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "edited"
    words = [folder / "[ab].*", "--color", "hair=auburn", "--out", out]
    assert photo_task(*words) == 0
    whole = (out / "a.jpg").read_bytes()
    (out / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with Image.open(folder / "b.webp") as photo:
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "b.webp", lossless=True)
    capsys.readouterr()
    assert photo_task(*words) == 0
    assert "finished" not in capsys.readouterr().out
    assert (out / "a.jpg").read_bytes() == whole


def test_a_label_map_can_be_written_corrected_and_read(file: Path, tmp_path: Path) -> None:
    mask, out = tmp_path / "mask.png", tmp_path / "out.png"
    assert photo_task(file, "--color", "hair=auburn", "--mask-out", mask, "-o", out) == 0
    with Image.open(mask) as drawn:
        assert drawn.size == (900, 600) and drawn.mode == "P"
        labels = np.asarray(drawn)
    with Image.open(out) as first:
        automatic = np.asarray(first)
    only_left = np.where(np.arange(900) < 450, labels, 0).astype(np.uint8)
    Image.fromarray(only_left).save(tmp_path / "better.png")
    assert photo_task(file, "--color", "hair=auburn", "--mask-in", tmp_path / "better.png", "-o", out) == 0
    with Image.open(out) as second, Image.open(file) as own:
        edited, before = np.asarray(second), np.asarray(own)
    assert (edited[:, 480:] == before[:, 480:]).all() and (automatic[:, 480:] != before[:, 480:]).any()
    assert (edited[:, :420] != before[:, :420]).any()


def test_faces_are_listed_and_numbered(file: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "faces.png"
    assert main(["faces", str(file), "-o", str(out)]) == 0
    (face,) = json.loads(capsys.readouterr().out)
    assert face["face"] == 0 and abs(face["tilt"] + 12) < 4
    with Image.open(out) as drawn, Image.open(file) as own:
        assert drawn.size == own.size and (np.asarray(drawn) != np.asarray(own)).any()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["a.jpg", "-o", "b.jpg", "--style", "a.jpg"], "--regions"),
        (["a.jpg", "-o", "b.jpg", "--color", "hair=red", "--regions", "hair"], "--regions"),
        (["a.jpg", "-o", "b.jpg"], "--color"),
        (["a.jpg", "-o", "", "--color", "hair=red"], "--out.*empty"),
        (["", "-o", "b.jpg", "--color", "hair=red"], "PHOTO"),
        (["a.jpg", "-o", "b.jpg", "--color", "hair=red", "--strength", "2"], "--strength.*2"),
        (["a.jpg", "-o", "b.jpg", "--color", "hair=red", "--face", "-1"], "--face.*-1"),
    ],
)
def test_contradicting_options_are_refused(words: list[str], match: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["photo", *words])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(match, last), last


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--color", "hair=red", "-o", "out.gif"], ".gif"),
        (["--color", "hair=aubrun", "-o", "out.png"], "auburn"),
        (["--color", "hairs=red", "-o", "out.png"], "hairs"),
        (["--color", "red", "-o", "out.png"], "REGIONS=COLOR"),
        (["--color", "hair=rgb(300,0,0)", "-o", "out.png"], "unknown color 'rgb(300,0,0)'"),
        (["--style", "random", "--regions", "hair", "--steps", "0", "-o", "out.png"], "steps"),
        (["--color", "hair=red", "-o", "photo.png"], "photo.png"),
        (["--style", "random", "--regions", "hair", "--face", "7", "-o", "out.png"], "got face 7"),
        (["--color", "hair=red", "--precision", "float8", "-o", "out.png"], "'float8'"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    words: list, match: str, file: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(file.parent)
    progress = ("loading", "editing")
    before = sorted(file.parent.iterdir())
    assert photo_task("photo.png", *words) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith(progress))
    assert match in error
    assert sorted(file.parent.iterdir()) == before


def test_photos_are_named_by_files_folders_and_patterns(folder: Path, tmp_path: Path) -> None:
    a, b, empty = (folder / name for name in ("a.jpg", "b.webp", "empty.png"))
    (folder / "notes.txt").write_text("no photo")
    assert named_photos([str(folder)]) == [a, b, empty]
    assert named_photos([str(folder / "*.webp"), str(a), str(b)]) == [b, a]
    shutil.copy(a, folder / "[1].jpg")
    assert named_photos([str(folder / "[1].jpg")]) == [folder / "[1].jpg"]
    for missing in (folder / "*.tiff", tmp_path / "nothing" / "*"):
        with pytest.raises(ValueError, match="no file"):
            named_photos([str(missing)])
    with pytest.raises(ValueError, match=r"both become .*a\.jpg"):
        output_files([a, tmp_path / "a.jpg"], tmp_path / "out", folder=True)
    assert output_files([Path("x.gif")], Path("out"), folder=True) == [Path("out/x.png")]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_every_format_tells_that_it_is_finished(suffix: str, file: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / f"out{suffix}"
    for _ in range(2):
        assert photo_task(file, "--color", "hair=auburn", "-o", out) == 0
    assert "finished" in capsys.readouterr().out.splitlines()[-1]
    assert not is_finished(out, "another request")


def test_another_precision_edits_again(file: Path, tmp_path: Path, capsys) -> None:
    out, words = tmp_path / "out.png", [file, "--color", "hair=auburn"]
    for precision, finished in (("float32", False), ("float32", True), ("bfloat16", False)):
        assert photo_task(*words, "--precision", precision, "-o", out) == 0
        assert ("finished" in capsys.readouterr().out) is finished
