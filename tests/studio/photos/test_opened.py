"""Files of opened photos: those in use are kept, and the example is made again after its files are gone."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ldm.data.photo_file import PhotoFile
from ldm.pipeline import PhotoError
from ldm.pipeline.photo import MissingRegionError
from ldm.studio.photos.backend import Example, PhotoBackend, PhotoEdit
from ldm.studio.photos.opened import OpenedPhoto
from ldm.studio.server.upload_folder import UploadFolder

PHOTO = Path(__file__).parents[3] / "assets/photos/astronaut.jpg"


@pytest.fixture
def uploads(tmp_path, monkeypatch) -> UploadFolder:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return UploadFolder(limit=10**9)


def opened_photo(uploads: UploadFolder) -> OpenedPhoto:
    return OpenedPhoto.begin(PhotoFile.open(PHOTO), "mine.jpg", [], uploads)


def test_photos_in_use_outlive_older_uploads(uploads) -> None:
    first, second = opened_photo(uploads), opened_photo(uploads)
    for number, photo in enumerate((first, second)):
        for file in photo.folder.rglob("*"):
            os.utime(file, (number, number))
    assert first.keep()
    uploads.limit = sum(file.stat().st_size for file in first.folder.rglob("*") if file.is_file())
    uploads.make_room()
    assert first.keep() and not second.keep()


def test_the_example_is_made_again_after_its_files_are_deleted(uploads) -> None:
    backend = SimpleNamespace(
        open=lambda path: (opened_photo(uploads), ""), chosen=lambda opened: None, edit=lambda *edit: None
    )
    example = Example(backend, PHOTO)
    before = example.get()
    assert example.get().current.preview == before.current.preview
    before.current.preview.unlink()
    after = example.get()
    assert after.current.preview != before.current.preview and after.keep()


def test_a_missing_region_is_named_as_on_the_page(monkeypatch) -> None:
    def edit(*arguments, **options) -> None:
        raise MissingRegionError(PHOTO, 0, "eye_g", ["u_lip", "hair"])

    monkeypatch.setattr("ldm.studio.photos.backend.PhotoEditor", lambda pipe, parser: None)
    backend = SimpleNamespace(models=SimpleNamespace(kinds=["ema"], get=lambda kind: None), parser=None)
    opened = SimpleNamespace(face=0, photo=lambda editor: SimpleNamespace(edit=edit))
    with pytest.raises(PhotoError, match=r"^Face 1 has no glasses; it has upper lip, hair$"):
        PhotoBackend.edit(backend, opened, PhotoEdit(("eye_g",), "#000000"), {})
