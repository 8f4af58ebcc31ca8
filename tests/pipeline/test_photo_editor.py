"""Photos from open to saved: with the demo weights, and label maps painted as photos, which a nearest colour parses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ldm.cli import main
from ldm.cli.photo_grammar import PHOTO_TASKS
from ldm.data.color_space import ColorSpace
from ldm.data.images import ImageError
from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.photo_metadata import SOURCE_TYPE
from ldm.parsing import FaceParser
from ldm.pipeline import FacePipeline, Photo, PhotoEditor, PhotoError
from ldm.pipeline.photo_editor import DEMO
from ldm.pipeline.region_color import lab_of
from tests.parsing.test_alignment import FACE, NearestColour, painted


@pytest.fixture(scope="module")
def editor() -> PhotoEditor:
    parser = FaceParser(NearestColour(), CELEBAMASK_HQ.regions, (256, 256), ((0.5,) * 3, (0.5,) * 3))
    return PhotoEditor(FacePipeline.from_pretrained(DEMO, device="cpu"), parser)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A photo with a turned face, and grain: finer than the model's pixels, coarse enough for the parser."""
    pixels = np.asarray(painted(FACE, 12)).astype(int)
    noise = np.random.default_rng(0).integers(-6, 7, pixels.shape)
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def photo(editor: PhotoEditor, file: Path) -> Photo:
    return editor.open(file)


def hair_of(photo: Photo) -> np.ndarray:
    """Return where the painted photo shows hair, (H, W)."""
    colour = np.array(CELEBAMASK_HQ.palette[CELEBAMASK_HQ.index("hair")])
    return np.abs(photo.file.pixels.astype(int) - colour).max(-1) <= 6


@pytest.mark.parametrize("how", [{"color": "#7a3b2e"}, {"color": "#7a3b2e", "detail": "replace"}])
def test_pixels_outside_the_matte_keep_their_bytes(photo: Photo, how: dict) -> None:
    result = photo.edit(regions=["hair"], steps=2, **how)
    changed = (result.pixels != photo.file.pixels).any(-1)
    assert changed[hair_of(photo)].mean() > 0.8
    assert not changed[result.matte == 0].any() and (result.matte == 0).mean() > 0.5


def test_hair_takes_the_colour_and_keeps_its_detail(photo: Photo) -> None:
    hair = photo.edit(color=(122, 59, 46), regions=["hair"])
    core = hair.matte == 1
    assert core.sum() > 500
    before, after = (ColorSpace.srgb().to_lab(x) for x in (photo.file.pixels, hair.pixels))
    assert np.abs(after[core].mean(0) - lab_of("#7a3b2e")).max() < 2
    contrast = [np.diff(x[..., 0], axis=1)[core[:, 1:] & core[:, :-1]].std() for x in (before, after)]
    assert contrast[1] > 0.8 * contrast[0]


def test_an_edit_to_its_own_style_changes_nothing(photo: Photo) -> None:
    result = photo.edit(style=photo, regions=["hair"], steps=2)
    assert (result.pixels == photo.file.pixels).all()


def test_strength_scales_the_change(photo: Photo) -> None:
    none, half, full = (
        photo.edit(color="crimson", regions=["hair"], strength=s).pixels.astype(int) for s in (0, 0.5, 1)
    )
    own = photo.file.pixels.astype(int)
    assert (none == own).all()
    assert 0.3 < np.abs(half - own).sum() / np.abs(full - own).sum() < 0.7


def test_the_seed_decides_a_random_style(photo: Photo) -> None:
    style = photo.random_style()
    results = [photo.edit(style=style, regions=["hair"], seed=seed, steps=2).pixels for seed in (1, 1, 2)]
    assert (results[0] == results[1]).all() and (results[0] != results[2]).any()


def test_the_saved_photo_keeps_orientation_size_and_profile(editor: PhotoEditor, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    stored = painted(FACE).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "in.jpg", exif=exif, icc_profile=profile, quality=100, subsampling=0)
    photo = editor.open(tmp_path / "in.jpg")
    assert photo.file.pixels.shape == (600, 900, 3) and abs(photo.faces[0].tilt) < 5
    photo.edit(color="auburn", regions=["hair"]).save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as saved:
        assert saved.size == stored.size and saved.info["icc_profile"] == profile
        assert saved.getexif()[0x0112] == 6 and saved.getexif()[0x010F] == "maker"
        assert not saved.getexif().get_ifd(0x8825)
        assert SOURCE_TYPE.encode() in saved.info["xmp"]
        pixels = np.asarray(saved.transpose(Image.Transpose.ROTATE_270)).astype(int)
    far = np.abs(pixels - photo.file.pixels)[:, :150]  # background, which no JPEG block shares with the face
    assert far.max() <= 1
    with pytest.raises(ImageError, match="itself"):
        photo.edit(color="auburn", regions=["hair"], strength=0).save(tmp_path / "in.jpg")


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"regions": ["hair"]}, "style or a color"),
        ({"regions": ["hair"], "color": "red", "face": 3}, r"0\.\.0, got 3"),
        ({"regions": ["hair"], "color": "red", "strength": 2.0}, r"\[0, 1\], got 2"),
        ({"regions": ["hair"], "color": "red", "detail": "half"}, "keep, replace"),
        ({"regions": ["hat"], "color": "red"}, "no hat"),
        ({"regions": ["hairs"], "color": "red"}, "hairs"),
        ({"regions": ["hair"], "color": "aubrun"}, "auburn"),
    ],
)
def test_errors_name_what_was_wrong(photo: Photo, how: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        photo.edit(**how)


def test_a_photo_without_a_face_is_refused(editor: PhotoEditor, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), CELEBAMASK_HQ.palette[0]).save(tmp_path / "empty.png")
    with pytest.raises(PhotoError, match=r"empty\.png: no face"):
        editor.open(tmp_path / "empty.png")


# --- the command line ---


@pytest.fixture
def patched(editor: PhotoEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line load the stand-in parser: no parser's weights are in the repository."""
    monkeypatch.setattr(FaceParser, "from_pretrained", lambda *_, **__: editor.parser)


def test_the_command_line_edits_a_photo(patched: None, file: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "edited.png"
    words = [str(file), "--parser", "PARSER", "--device", "cpu"]
    assert main(["photo", *words, "--color", "hair=auburn", "-o", str(out)]) == 0
    with Image.open(out) as saved:
        recipe = json.loads(saved.info["sca-dm"])
        assert saved.size == (900, 600)
    assert recipe["regions"] == ["hair"] and recipe["options"]["seed"] == 0
    assert (
        main(["photo", *words, "--style", str(file), "--regions", "hair", "--steps", "2", "-o", str(out)])
        == 0
    )
    with Image.open(out) as saved, Image.open(file) as own:
        assert (np.asarray(saved) == np.asarray(own)).all()
    assert main(["photo", *words, "--color", "hat=red", "-o", str(out)]) == 2
    assert "no hat" in capsys.readouterr().err


def test_the_command_line_lists_faces(patched: None, file: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "faces.png"
    assert main(["faces", str(file), "--parser", "PARSER", "-o", str(out)]) == 0
    (face,) = json.loads(capsys.readouterr().out)
    assert face["face"] == 0 and abs(face["tilt"] + 12) < 4
    with Image.open(out) as drawn, Image.open(file) as own:
        assert drawn.size == own.size and (np.asarray(drawn) != np.asarray(own)).any()


@pytest.mark.parametrize("words", [["--style", "a.jpg"], ["--color", "hair=red", "--regions", "hair"], []])
def test_contradicting_options_are_refused(words: list[str]) -> None:
    assert set(PHOTO_TASKS) == {"photo", "faces"}
    with pytest.raises(SystemExit, match="2"):
        main(["photo", "a.jpg", "--parser", "p", "-o", "b.jpg", *words])
