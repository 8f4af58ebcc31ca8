"""Photos from open to saved: with the demo weights, and label maps painted as photos, which a nearest color parses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from ldm.checkpoints.locate import DEMO
from ldm.data.color_space import ColorSpace
from ldm.data.images import ImageError
from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.photo_metadata import SOURCE_TYPE
from ldm.parsing import FaceParser
from ldm.parsing.alignment import Crop
from ldm.parsing.photo_faces import Face
from ldm.pipeline import FacePipeline, Photo, PhotoEditor, PhotoError
from ldm.pipeline.photo_face import FaceLabels
from ldm.pipeline.region_color import lab_of
from tests.parsing.test_alignment import FACE, NearestColor, painted


@pytest.fixture(scope="module")
def editor() -> PhotoEditor:
    parser = FaceParser(NearestColor(), CELEBAMASK_HQ.regions, (256, 256), ((0.5,) * 3, (0.5,) * 3))
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
    color = np.array(CELEBAMASK_HQ.palette[CELEBAMASK_HQ.index("hair")])
    return np.abs(photo.file.pixels.astype(int) - color).max(-1) <= 6


@pytest.mark.parametrize("how", [{"color": "#7a3b2e"}, {"color": "#7a3b2e", "detail": "replace", "steps": 2}])
def test_pixels_outside_the_matte_keep_their_bytes(photo: Photo, how: dict) -> None:
    result = photo.edit(regions=["hair"], **how)
    changed = (result.pixels != photo.file.pixels).any(-1)
    assert changed[hair_of(photo)].mean() > 0.8
    assert not changed[result.matte == 0].any() and (result.matte == 0).mean() > 0.5


def test_hair_takes_the_color_and_keeps_its_detail(photo: Photo) -> None:
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
    style = photo.null_style()
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
    with pytest.raises(ImageError, match=r"in\.jpg"):
        photo.edit(color="auburn", regions=["hair"], strength=0).save(tmp_path / "in.jpg")


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"regions": ["hair"]}, "style or a color"),
        ({"regions": ["hair"], "color": "red", "face": 3}, "has 1 face, numbered from 0, got face 3"),
        ({"regions": ["hair"], "color": "red", "strength": 2.0}, r"\[0, 1\], got 2"),
        ({"regions": ["hair"], "color": "red", "detail": "half"}, "keep, replace"),
        ({"regions": [], "color": "red"}, "at least one"),
        ({"regions": ["hat"], "color": "red"}, "no region 'hat'"),
        ({"regions": ["hairs"], "color": "red"}, "hairs"),
        ({"regions": ["hair"], "color": "aubrun"}, "auburn"),
        ({"regions": ["hair"], "color": (122, 59.5, 46)}, r"integers in 0\.\.255, got \(122, 59\.5, 46\)"),
        ({"regions": ["hair"], "color": (122, 300, 46)}, r"integers in 0\.\.255"),
        ({"regions": ["hair"], "color": (122, 59)}, r"three integers"),
        ({"color": {"hair": (-1, 0, 0)}}, r"integers in 0\.\.255"),
        ({"regions": ["hair"], "color": "red", "sede": 3}, "unknown option 'sede'"),
        ({"regions": ["hair"], "color": "red", "steps": -4}, "steps must be"),
        ({"regions": ["hair"], "color": "red", "detail": "replace", "seed": [1, 2]}, "one integer.*[1, 2]"),
    ],
)
def test_errors_name_what_was_wrong(photo: Photo, how: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        photo.edit(**how)


@pytest.mark.parametrize("face", [7, -1])
def test_every_method_refuses_a_face_that_is_not_there(photo: Photo, face: int) -> None:
    for method in (photo.labels, photo.label_maps, photo.labels_in_photo, photo.style, photo.null_style):
        with pytest.raises(PhotoError, match=f"has 1 face, numbered from 0, got face {face}"):
            method(face)


def test_a_color_warns_of_sampling_options_and_does_not_store_them(photo: Photo, recwarn) -> None:
    with pytest.warns(UserWarning, match='detail="auto".*: seed, steps'):
        kept = photo.edit(color="auburn", regions=["hair"], seed=3, steps=2)
    recwarn.clear()
    sampled = photo.edit(color="auburn", regions=["hair"], seed=3, steps=2, detail="replace")
    photo.edit(color="auburn", regions=["hair"], progress=lambda done, total: None)
    assert not recwarn.list
    facts = [json.loads(edited.recipe) for edited in (kept, sampled)]
    assert [fact["options"] for fact in facts] == [{}, {"seed": 3, "steps": 2}]
    assert [fact["precision"] for fact in facts] == [None, photo.pipe.precision]


def test_numbers_of_numpy_are_stored(photo: Photo) -> None:
    color = tuple(np.array([122, 59, 46]))
    how = {"color": {"hair": color}, "detail": "replace", "strength": np.float32(0.5)}
    result = photo.edit(np.int64(0), seed=np.int64(1), steps=np.int64(1), **how)
    recipe = json.loads(result.recipe)
    assert recipe["color"] == {"hair": [122, 59, 46]} and recipe["options"] == {"seed": 1, "steps": 1}
    assert (recipe["face"], recipe["strength"]) == (0, 0.5)


def test_the_editor_takes_the_precision_of_its_model(monkeypatch, editor: PhotoEditor) -> None:
    monkeypatch.setattr(FaceParser, "from_pretrained", lambda *_, **__: editor.parser)
    half = PhotoEditor.from_pretrained(DEMO, device="cpu", precision="bfloat16", weights="raw")
    assert half.pipe.precision == "bfloat16"


def test_a_photo_without_a_face_is_refused(editor: PhotoEditor, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), CELEBAMASK_HQ.palette[0]).save(tmp_path / "empty.png")
    with pytest.raises(PhotoError, match=r"empty\.png: no face"):
        editor.open(tmp_path / "empty.png")


def test_several_colors_at_once_are_those_of_single_edits(photo: Photo) -> None:
    lips = photo.edit(color="crimson", regions=["u_lip", "l_lip"])
    hair = photo.edit(color="auburn", regions=["hair"])
    both = photo.edit(color={"hair": "auburn", "u_lip": "crimson", "l_lip": "crimson"})
    assert (both.matte == np.maximum(lips.matte, hair.matte)).all()
    for one, other in ((lips, hair), (hair, lips)):
        alone = (one.matte > 0) & (other.matte == 0)
        assert alone.any() and (both.pixels[alone] == one.pixels[alone]).all()
    assert json.loads(both.recipe)["regions"] == ["hair", "u_lip", "l_lip"]
    with pytest.raises(PhotoError, match="regions"):
        photo.edit(color={"hair": "auburn"}, regions=["hair"])


def test_a_label_map_of_the_photo_replaces_the_parsers(photo: Photo) -> None:
    own = photo.labels_in_photo()
    same = photo.with_labels(own).edit(color="auburn", regions=["hair"])
    parsed = photo.edit(color="auburn", regions=["hair"])
    assert np.abs(same.matte - parsed.matte).mean() < 0.01
    hair = own == CELEBAMASK_HQ.index("hair")
    half = own.copy()
    half[:, : np.flatnonzero(hair.any(0)).mean().astype(int)] = 0
    halved = photo.with_labels(half).edit(color="auburn", regions=["hair"])
    assert 0.2 < halved.matte.sum() / parsed.matte.sum() < 0.8
    assert json.loads(halved.recipe)["labels"] and json.loads(parsed.recipe)["labels"] is None
    with pytest.raises(PhotoError, match=r"900 x 600 pixels, got 10 x 20"):
        photo.with_labels(np.zeros((20, 10), np.uint8))


def test_label_maps_of_a_face_stay_after_an_edit_and_can_be_painted(photo: Photo) -> None:
    maps = photo.label_maps()
    parsed = photo.edit(color="auburn", regions=["hair"])
    blue = replace(photo.file, pixels=photo.edit(color="blue", regions=["hair"]).pixels)
    again = Photo(photo.pipe, photo.parser, blue, photo.faces, face_labels={0: maps})
    after = again.edit(
        color="auburn", regions=["hair"]
    )  # the parser knows regions by color: it would see no hair
    assert np.abs(after.matte - parsed.matte).mean() < 0.02 and json.loads(after.recipe)["labels"] is None
    crop = torch.zeros_like(maps.crop)
    crop[:40, :40] = CELEBAMASK_HQ.index("hair")  # apart from the face
    painted_maps = FaceLabels(crop, torch.zeros_like(maps.around), painted=True)
    painted_photo = Photo(photo.pipe, photo.parser, photo.file, photo.faces, face_labels={0: painted_maps})
    corner = painted_photo.edit(color="auburn", regions=["hair"])
    assert 0 < corner.matte.sum() < parsed.matte.sum() / 2
    assert json.loads(corner.recipe)["labels"]
    empty = np.zeros(photo.file.pixels.shape[:2], np.uint8)
    with pytest.raises(PhotoError, match="no region 'hair'"):  # with_labels replaces painted maps too
        painted_photo.with_labels(empty).edit(color="auburn", regions=["hair"])


def test_auto_replaces_only_small_faces_that_are_reconstructed_well(photo: Photo, monkeypatch) -> None:
    how = {"style": photo, "regions": ["hair"], "steps": 2}
    assert (
        json.loads(photo.edit(**how).recipe)["detail"] == "keep"
    )  # the crop is larger than the model's 64 pixels
    small = Photo(photo.pipe, photo.parser, photo.file, (Face(Crop(450 + 300j, 30 + 0j)),))
    for bound, detail in ((1000.0, "replace"), (0.0, "keep")):
        monkeypatch.setattr("ldm.pipeline.photo_edits.MAX_ERROR", bound)
        result = small.edit(style=small, regions=small._face(0).visible_regions()[:1], steps=2)
        assert json.loads(result.recipe)["detail"] == detail


def test_hair_of_a_neighbor_keeps_its_bytes(editor: PhotoEditor, photo: Photo) -> None:
    face, width = photo.faces[0], photo.file.pixels.shape[1]
    other = Face(Crop(face.crop.center + 2 * abs(face.crop.axis), face.crop.axis))
    alone = photo.edit(color="auburn", regions=["hair"])
    beside = Photo(photo.pipe, photo.parser, photo.file, (face, other)).edit(color="auburn", regions=["hair"])
    middle = round(face.crop.center.real + 1.1 * abs(face.crop.axis))
    assert middle < width and not beside.matte[:, middle:].any()
    assert (beside.matte > 0).sum() <= (alone.matte > 0).sum()
