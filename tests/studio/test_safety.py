"""Safe by default: who may come in, what may be sent, what is said when something breaks."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.images import ImageError
from ldm.data.labels import CELEBAMASK_HQ
from ldm.studio.api import Api
from ldm.studio.controls import Settings
from ldm.studio.errors import sentence
from ldm.studio.faces import FaceGallery, UnknownFaceError, face_gallery
from ldm.studio.mask_painter import painted
from ldm.studio.options import FACES, LAST, PASSWORD, build_parser, check, chosen_checkpoint
from ldm.studio.uploads import MAX_BYTES, masked_face, read_mask
from scripts import draw_faces


def options(*words: str) -> None:
    parser = build_parser()
    check(parser, parser.parse_args(words))


@pytest.mark.parametrize("words", [["--share"], ["--host", "0.0.0.0"], ["--host", "192.168.1.5"]])
def test_letting_others_in_wants_a_password_or_a_reason(words, monkeypatch, capsys) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(SystemExit):
        options(*words)
    assert PASSWORD in capsys.readouterr().err
    with pytest.raises(SystemExit):
        options(*words, "--no-password", " ")
    options(*words, "--no-password", "behind our own login")
    monkeypatch.setenv(PASSWORD, "long and secret")
    options(*words)


def test_this_machine_alone_needs_none(monkeypatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    options()
    options("--host", "127.0.0.1")
    assert build_parser().parse_args([]).host is None


def test_the_last_checkpoint_comes_before_the_demo_weights(tmp_path) -> None:
    assert chosen_checkpoint(tmp_path, None) == str(tmp_path / FACES)
    (tmp_path / LAST).parent.mkdir()
    (tmp_path / LAST).touch()
    assert chosen_checkpoint(tmp_path, None) == str(tmp_path / LAST)
    assert chosen_checkpoint(tmp_path, "runs/mine") == "runs/mine"


def encoded(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


MASK = encoded(Image.fromarray(np.full((32, 24), 13, np.uint8)))


def test_a_phone_photo_is_turned_upright_and_its_metadata_is_gone() -> None:
    photo = Image.new("RGB", (32, 24), "blue")
    photo.paste("red", (0, 0, 16, 24))  # left half
    exif = Image.Exif()
    exif[0x0112] = 6  # turned right when shown: left becomes top
    face = masked_face(encoded(photo, "JPEG", exif=exif, quality=95), MASK, CELEBAMASK_HQ, (64, 64))
    assert face.image[0, :24].mean() > 0.9 and face.image[0, -24:].mean() < -0.9
    assert isinstance(face.image, torch.Tensor) and face.name == "your photo"


@pytest.mark.parametrize(
    ("photo", "said"),
    [
        (b"", "empty"),
        (None, "empty"),
        (b"<svg/>", "no JPEG or PNG image"),
        (encoded(Image.new("RGB", (32, 24)), "GIF"), "no JPEG or PNG image"),
        (encoded(Image.new("RGB", (32, 24)), "TIFF"), "no JPEG or PNG image"),
        (encoded(Image.new("1", (9000, 9000))), "64 million"),
        (encoded(Image.effect_noise((256, 256), 50))[:-5000], "truncated or damaged"),
        (encoded(Image.new("RGB", (64, 24))), "64 x 24"),
        (bytes(MAX_BYTES + 1), "at most 50"),
    ],
)
def test_what_is_no_photo_is_refused(photo, said) -> None:
    with pytest.raises(ImageError, match=said) as error:
        masked_face(photo, MASK, CELEBAMASK_HQ, (64, 64))
    assert "/" not in str(error.value).replace("and/or", "")  # no path of the machine is told


def test_masks_hold_region_numbers_alone() -> None:
    assert read_mask(MASK, CELEBAMASK_HQ, (64, 64)).unique().tolist() == [13]
    with pytest.raises(ImageError, match="label 99 in the label map"):
        read_mask(encoded(Image.new("L", (8, 8), 99)), CELEBAMASK_HQ, (64, 64))
    with pytest.raises(ImageError, match="colors are not of"):
        read_mask(encoded(Image.new("RGB", (8, 8))), CELEBAMASK_HQ, (64, 64))


def test_names_from_the_browser_are_looked_up_never_opened(tmp_path) -> None:
    draw_faces.main([str(tmp_path), "--count", "3", "--size", "16"])
    found = face_gallery(tmp_path, {}, CELEBAMASK_HQ, (16, 16))
    assert found.face("Dataset", "000001").image.shape == (3, 16, 16)
    for name in ("../images/000001", str(tmp_path / "images/000001.png"), "/etc/passwd", ""):
        with pytest.raises(UnknownFaceError):
            found.face("Dataset", name)
    with pytest.raises(UnknownFaceError):
        found.search("/etc", "")


def test_a_large_folder_is_searched_by_name_and_only_shown_thumbnails_are_decoded(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for number in range(2000):
            (tmp_path / folder / f"{number}.png").write_bytes(b"not decoded before it is shown")
    found = face_gallery(tmp_path, {}, CELEBAMASK_HQ, (16, 16))
    assert found.search("Dataset", "199") == ["199", "1199", *(str(1990 + n) for n in range(10))]
    names = found.search("Dataset", "")[: FaceGallery.PAGE]
    assert [name for _, name in found.thumbnails("Dataset", names)] == [str(n) for n in range(24)]


def test_settings_and_masks_of_the_browser_are_checked(tmp_path) -> None:
    good = [5, True, True, 2, 20, "unipc", 1.5, "ema"]
    assert Settings.read(*good).options() == {"seed": 5, "steps": 20, "solver": "unipc", "guidance": 1.5}
    for place, value in ((0, "x"), (3, 99), (4, 10**9), (4, None), (6, "much")):
        with pytest.raises(ValueError, match="must be"):
            Settings.read(*good[:place], value, *good[place + 1 :])
    draw_faces.main([str(tmp_path), "--count", "2", "--size", "16"])
    face = face_gallery(tmp_path, {}, CELEBAMASK_HQ, (16, 16)).face("Dataset", "000000")
    assert torch.equal(painted({}, face, CELEBAMASK_HQ), face.labels)
    with pytest.raises(ValueError, match="8 x 8"):
        painted({"labels": "8x8:64*0"}, face, CELEBAMASK_HQ)


def test_errors_become_one_plain_sentence() -> None:
    assert sentence(ValueError("nothing would change")) == "Nothing would change."
    assert "Out of memory" in sentence(RuntimeError("CUDA out of memory. Tried to allocate"))
    strange = sentence(KeyError("/home/anna/secret"))
    assert "KeyError" in strange and "secret" not in strange


def test_programs_get_no_more_steps_than_the_page() -> None:
    with pytest.raises(ValueError, match=r"steps must be in \[1, 200\], got 1000"):
        Api(None, None, None).swap("a", "b", ["hair"], steps=1000)
