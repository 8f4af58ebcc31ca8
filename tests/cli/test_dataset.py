"""The task `dataset`, with the bundled face parser on two photos in the public domain."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.cli import main
from ldm.cli.dataset_job import BATCH_SIZE
from ldm.data.datasets.celebamask import CelebAMaskHQ
from ldm.data.datasets.folders import read_names
from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing import FaceParser
from ldm.pipeline import face_dataset
from ldm.pipeline.aligned_faces import AlignedFace, aligned_faces
from ldm.pipeline.face_dataset import readable_name
from ldm.training.config import load_config

PHOTOS = Path(__file__).resolve().parents[2] / "assets/photos"


def dataset_task(*words: object) -> int:
    return main(["dataset", "--device", "cpu", "--size", "256", *map(str, words)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two portraits, a copy of one, a photo without a face, and a file that is no photo."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut.jpg", "grace_hopper.jpg"):
        shutil.copy(PHOTOS / name, folder / name)
    shutil.copy(PHOTOS / "astronaut.jpg", folder / "copy.jpg")
    Image.new("RGB", (300, 200), "green").save(folder / "empty.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "mine"
    assert dataset_task(photos, out) == 0
    return out


def test_faces_are_aligned_and_labeled(made: Path) -> None:
    faces = CelebAMaskHQ(256, str(made))
    assert [pair.name for pair in faces.pairs] == ["astronaut", "grace_hopper"]
    for i in range(2):
        labels = np.asarray(faces[i]["labels"])
        eyes = np.isin(labels, CELEBAMASK_HQ.indices(["l_eye", "r_eye", "eye_g"]))
        rows, columns = np.nonzero(eyes)
        assert 0.4 < rows.mean() / 256 < 0.55 and abs(columns.mean() / 256 - 0.5) < 0.05
    glasses = (np.asarray(faces[1]["labels"]) == CELEBAMASK_HQ.index("eye_g")).mean()
    assert glasses > 0.02


def test_one_face_validates_and_is_not_trained_on(made: Path) -> None:
    config = load_config(
        [PHOTOS.parents[1] / "configs/latent-diffusion/faces-256.yaml", made / "data.yaml"], []
    )
    sets = config["data"]["params"]
    train, validation = (CelebAMaskHQ(**sets[name]["params"]) for name in ("train", "validation"))
    assert [pair.name for pair in (*train.pairs, *validation.pairs)] == ["astronaut", "grace_hopper"]


def test_the_printed_command_fits_few_faces(photos: Path, made: Path, capsys) -> None:
    config = load_config([PHOTOS.parents[1] / "configs/latent-diffusion/faces-256.yaml"], [])
    assert config["data"]["params"]["batch_size"] == BATCH_SIZE
    assert dataset_task(photos, made) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.endswith(f"faces-256-finetune.yaml {made / 'data.yaml'} -t data.params.batch_size=1")


def test_what_is_dropped_has_a_reason(made: Path) -> None:
    lines = (made / "dropped.txt").read_text().splitlines()
    reasons = {Path(line.split(": ")[0]).name: line for line in lines}
    assert reasons.keys() == {"copy.jpg", "empty.png", "broken.jpg"}
    assert "astronaut.jpg" in reasons["copy.jpg"] and "no face" in reasons["empty.png"]


def test_the_contact_sheet_shows_photos_and_label_maps(made: Path) -> None:
    with Image.open(made / "contact_sheet_001.jpg") as sheet:
        drawn = np.asarray(sheet.convert("RGB")).astype(int)
    skin = np.array(CELEBAMASK_HQ.palette[CELEBAMASK_HQ.index("skin")])
    assert (np.abs(drawn - skin).max(-1) < 12).sum() > 2000


def test_resumes_without_opening_finished_photos(photos: Path, made: Path, monkeypatch, capsys) -> None:
    opened = []

    def aligned(path: Path, *_: object) -> list[str]:
        opened.append(path.name)
        return ["opened"]

    monkeypatch.setattr(face_dataset, "aligned_faces", aligned)
    Image.new("RGB", (300, 200), "blue").save(photos / "new.png")
    with (made / "photos.jsonl").open("a") as journal:
        journal.write('{"photo": "interr')  # a run that was killed while it wrote
    before = (made / "images/astronaut.png").stat().st_mtime_ns
    assert dataset_task(photos, made) == 0
    assert opened == ["new.png"] and (made / "images/astronaut.png").stat().st_mtime_ns == before
    records = [json.loads(line) for line in (made / "photos.jsonl").read_text().splitlines()]
    assert [Path(record["photo"]).name for record in records][-1] == "new.png"
    (photos / "new.png").unlink()
    assert dataset_task(photos, made, "--size", 128) == 2
    assert "'size': 256" in capsys.readouterr().err


def test_faces_deleted_by_hand_stay_deleted(photos: Path, made: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "mine"
    shutil.copytree(made, copy)
    (copy / "images/grace_hopper.png").unlink()
    assert dataset_task(photos, copy) == 0
    assert (copy / "train.txt").read_text() == (copy / "validation.txt").read_text() == "astronaut\n"
    printed = capsys.readouterr()
    assert "only one photo" in printed.err and "batch_size=1" in printed.out
    base = PHOTOS.parents[1] / "configs/latent-diffusion/faces-256.yaml"
    sets = load_config([base, copy / "data.yaml"], [])["data"]["params"]
    assert [len(CelebAMaskHQ(**sets[kind]["params"])) for kind in ("train", "validation")] == [1, 1]


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("photo (1)", "photo (1)"),
        ("Zo\u00eb", "Zo\u00eb"),
        ("portrait #2", "portrait _2"),
        (" .hidden", "hidden"),
        ("me.JPG", "me_JPG"),
        ("a,b\nc", "a_b_c"),
        ("a\u2028b", "a b"),
        ("...", "face"),
    ],
)
def test_names_can_be_read_from_a_list(stem: str, name: str, tmp_path: Path) -> None:
    assert readable_name(stem) == name
    (tmp_path / "names.txt").write_text(f"{name}\n", encoding="utf-8")
    assert read_names(tmp_path / "names.txt") == [name]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda photo: photo.resize((256, 256)), "--min-size"),
        (lambda photo: photo.crop((180, 40, 280, 180)), "outside the photo"),
    ],
    ids=["small", "cut off"],
)
def test_unusable_faces_are_dropped(change, match: str, tmp_path: Path) -> None:
    parser = FaceParser.from_pretrained(device="cpu")
    with Image.open(PHOTOS / "astronaut.jpg") as photo:
        change(photo).save(tmp_path / "face.png")
    (found,) = aligned_faces(tmp_path / "face.png", parser, 64, 128)
    assert isinstance(found, str) and match in found
    (face,) = aligned_faces(PHOTOS / "astronaut.jpg", parser, 64, 128)
    assert isinstance(face, AlignedFace) and face.image.shape == (3, 64, 64)


def test_a_folder_with_another_dataset_is_refused(photos: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "images").mkdir()
    assert dataset_task(photos, tmp_path) == 2
    assert "another dataset" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
