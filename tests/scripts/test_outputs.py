"""Outputs never replace inputs, and are checked before the first sample."""

import shutil
from pathlib import Path

import pytest

from ldm.checkpoints.io import write_checkpoint
from ldm.output_files import OutputError, check_outputs
from scripts import convert_checkpoint, draw_faces, export_model, sample_sem
from tests import small


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    config = small.diffusion()
    write_checkpoint(folder, small.sensitive(config).state_dict(), {"model": config})
    return folder


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    assert draw_faces.main([str(tmp_path / "faces"), "--count", "2", "--size", "16"]) == 0
    return tmp_path / "faces"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def sample(weights: Path, task: str, *options: object) -> int:
    common = ["--checkpoint", weights, "--steps", 1, "--device", "cpu"]
    return sample_sem.main([task, *map(str, [*common, *options])])


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("reconstruct", ["--image", "{faces}/images/000000.png", "--mask", "{faces}/labels/000000.png"]),
        ("reconstruct", ["--data", "{faces}"]),
        ("noise", ["--data", "{faces}", "--names", "000000"]),
    ],
)
@pytest.mark.parametrize("folder", ["images", "link"])
def test_photos_are_not_replaced(weights, faces, task, options, folder, capsys) -> None:
    (faces / "link").symlink_to(faces / "images")
    expected = "choose another folder" if "--data" in options else "would replace"
    before = contents(faces)
    words = [word.format(faces=faces) for word in options]
    assert sample(weights, task, *words, "--out", faces / folder) == 2
    assert expected in capsys.readouterr().err
    assert contents(faces) == before


def test_label_maps_styles_and_hard_links_are_not_replaced(weights, faces, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert sample(weights, "reconstruct", "--data", faces, "--out", faces / "labels") == 2
    assert (
        sample_sem.main(["style", "--checkpoint", str(weights), "--data", str(faces), "--out", str(out)]) == 0
    )
    before = contents(tmp_path)
    style = str(out / "000001.style")
    assert sample(weights, "swap", "--data", faces, "--style", style, "--out", tmp_path / "new") == 0
    shutil.rmtree(tmp_path / "new")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "000000.png").hardlink_to(faces / "images" / "000000.png")
    assert sample(weights, "swap", "--data", faces, "--style", style, "--out", tmp_path / "new") == 2
    assert "would replace" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "new")
    assert contents(tmp_path) == before


def test_a_face_called_overview_keeps_its_result(weights, faces, tmp_path) -> None:
    for folder in ("images", "labels"):
        (faces / folder / "000001.png").rename(faces / folder / "overview.png")
    assert sample(weights, "reconstruct", "--data", faces, "--out", tmp_path / "out") == 0
    results = contents(tmp_path / "out")
    assert {Path(name).name for name in results} == {
        "000000.png",
        "overview.png",
        "overview_all.png",
        "scores.json",
    }


def test_an_output_that_cannot_be_written_is_found_before_the_first_sample(
    weights, faces, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("ldm.cli.job.Job.run", lambda self: pytest.fail("sampled"))
    (tmp_path / "file").touch()
    assert sample(weights, "reconstruct", "--data", faces, "--out", tmp_path / "file" / "out") == 2
    assert "expected a folder" in capsys.readouterr().err
    (tmp_path / "out" / "000001.png").mkdir(parents=True)
    assert sample(weights, "reconstruct", "--data", faces, "--out", tmp_path / "out") == 2
    assert "000001.png is a folder" in capsys.readouterr().err
    assert sample(weights, "noise", "--data", faces, "--samples", 10**9, "--out", tmp_path / "many") == 2
    assert "too many" in capsys.readouterr().err
    assert sample(weights, "reconstruct", "--data", faces, "--out", "/proc/nowhere") == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_room_and_names_are_checked(tmp_path: Path) -> None:
    check_outputs([tmp_path / "new" / "a.png"], [tmp_path / "b.png"], size=1)
    assert not (tmp_path / "new").exists()
    with pytest.raises(OutputError, match="need at least 1,000,000,000,000,000 bytes"):
        check_outputs([tmp_path / "a.png"], [], size=10**15)
    with pytest.raises(OutputError, match="260 bytes"):
        check_outputs([tmp_path / ("é" * 128 + ".png")], [])
    with pytest.raises(OutputError, match="is a folder"):
        check_outputs([tmp_path], [])


def test_models_are_not_replaced_by_their_exports(weights: Path, capsys) -> None:
    before = contents(weights)
    for call in (
        lambda: export_model.main([str(weights), str(weights)]),
        lambda: convert_checkpoint.main([str(weights), str(weights), "--to", "ours"]),
    ):
        with pytest.raises(SystemExit) as left:
            call()
        assert left.value.code == 2 and "would replace" in capsys.readouterr().err
    assert contents(weights) == before
