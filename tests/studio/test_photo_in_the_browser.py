"""The tab of whole photos in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from ldm.data.labels import CELEBAMASK_HQ
from tests.studio import browser
from tests.studio.browser import ROOT, download, pixels

PHOTO = ROOT / "assets/photos/astronaut.jpg"


@pytest.fixture
def page(context, address) -> Iterator[object]:
    """A new visit with the example photo open."""
    page = context.new_page()
    page.set_default_timeout(browser.WAIT)
    page.goto(address)
    wait_for(page, "done")
    page.wait_for_selector("#photo-compare img")
    yield page
    page.close()


def wait_for(page, state: str) -> str:
    """Return the status of the photo tab, once it has this state."""
    page.wait_for_selector(f"#status-photo [data-state={state}]")
    return page.inner_text("#status-photo .text")


def begin(page) -> None:
    """Clear the status, so that the next one can be waited for."""
    page.evaluate("document.querySelector('#status-photo [data-state]').dataset.state = ''")


def upload(page, path: Path) -> None:
    """Drop a photo."""
    if page.locator("#photo-upload button[aria-label='Clear']").count():
        page.click("#photo-upload button[aria-label='Clear']")
    begin(page)
    page.set_input_files("#photo-upload input", path)


def choose(page, *regions: str) -> None:
    """Select exactly these regions of the face."""
    page.click("#face-photo .none")
    for region in regions:
        page.locator("#face-photo").get_by_role("button", name=region, exact=True).click()


def apply(page) -> None:
    """Apply the edit and wait for it."""
    begin(page)
    page.click("#photo-apply")
    wait_for(page, "done")


def test_the_example_is_edited_and_undone(page) -> None:
    edits = page.locator("#photo-edits li")
    assert edits.all_inner_texts() == ["hair: auburn"]
    choose(page, "upper lip", "lower lip")
    page.locator("#color").get_by_role("button", name="crimson").click()
    apply(page)
    browser.eventually(lambda: edits.count() == 2)
    page.click("#photo-undo")
    browser.eventually(lambda: edits.count() == 1)
    page.click("#photo-redo")
    browser.eventually(lambda: edits.count() == 2)


def test_an_uploaded_photo_comes_back_whole(page, tmp_path: Path) -> None:
    photo = tmp_path / "mine.png"
    Image.open(PHOTO).save(photo)
    upload(page, photo)
    assert wait_for(page, "done").startswith("1 face found")
    choose(page, "hair")
    apply(page)
    browser.eventually(lambda: page.is_enabled("#photo-download"))
    edited = download(page, "#photo-download", tmp_path / "edited")
    assert edited.suffix == ".png"
    before, after = pixels(photo), pixels(edited)
    assert after.shape == before.shape
    changed = np.abs(after - before).sum(-1) > 0
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 5000  # the hair
    assert rows.max() < 256 and columns.min() > 100 and columns.max() < 350  # and nothing far from it


def test_format_size_and_metadata_of_the_photo_are_kept(page, tmp_path: Path) -> None:
    photo = tmp_path / "mine.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    Image.open(PHOTO).convert("RGB").resize((700, 700)).save(photo, exif=exif, dpi=(300, 300))
    upload(page, photo)
    wait_for(page, "done")
    choose(page, "hair")
    apply(page)
    browser.eventually(lambda: page.is_enabled("#photo-download"))
    file = download(page, "#photo-download", tmp_path / "edited")
    assert file.name == "mine_edited.jpg"
    with Image.open(file) as edited:
        assert (edited.format, edited.size) == ("JPEG", (700, 700))
        assert edited.getexif()[ExifTags.Base.Artist] == "Ada"
        assert not edited.getexif().get_ifd(ExifTags.IFD.GPSInfo)  # private
        assert b"compositeWithTrainedAlgorithmicMedia" in file.read_bytes()


def test_pixels_outside_the_region_keep_their_bytes(page, tmp_path: Path) -> None:
    photo = tmp_path / "mine.png"
    Image.open(PHOTO).convert("RGB").save(photo)
    upload(page, photo)
    wait_for(page, "done")
    choose(page, "lower lip")
    page.locator("#color").get_by_role("button", name="plum").click()
    apply(page)
    browser.eventually(lambda: page.is_enabled("#photo-download"))
    edited = pixels(download(page, "#photo-download", tmp_path / "edited"))
    changed = (edited != pixels(photo)).any(-1)
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 50
    assert rows.max() - rows.min() < 30 and columns.max() - columns.min() < 60  # the mouth


def test_each_of_two_faces_is_found_and_edited_alone(page, tmp_path: Path) -> None:
    one = Image.open(PHOTO).convert("RGB").crop((60, 0, 380, 260))
    photo = tmp_path / "two.png"
    both = Image.new("RGB", (640, 260))
    both.paste(one, (0, 0))
    both.paste(one, (320, 0))
    both.save(photo)
    upload(page, photo)
    assert wait_for(page, "done").startswith("2 faces found")
    marks = page.locator("#photo-faces .marks button")
    assert marks.count() == 2
    boxes = [marks.nth(number).bounding_box()["x"] for number in range(2)]
    left = int(np.argmin(boxes))
    begin(page)
    marks.nth(1).click()
    assert wait_for(page, "done") == "Face 2 is selected"
    assert page.inner_text("#face-photo .name") == "face 2 of 2"
    choose(page, "hair")
    apply(page)
    browser.eventually(lambda: page.is_enabled("#photo-download"))
    changed = (pixels(download(page, "#photo-download", tmp_path / "edited")) != pixels(photo)).any(-1)
    edited, kept = (changed[:, 320:], changed[:, :320]) if left == 0 else (changed[:, :320], changed[:, 320:])
    assert edited.sum() > 2000 and not kept.any()


def test_painted_regions_are_edited(page, tmp_path: Path) -> None:
    photo = tmp_path / "mine.png"
    Image.open(PHOTO).convert("RGB").save(photo)
    upload(page, photo)
    wait_for(page, "done")
    page.click("#photo-mask button")
    page.locator("#painter-photo").get_by_role("radio", name="hat", exact=True).check()
    canvas = page.locator("#painter-photo canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    begin(page)
    page.mouse.move(box["x"] + 0.05 * box["width"], box["y"] + 0.6 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
    page.mouse.up()
    assert wait_for(page, "done") == "Edits now use the painted label map"
    choose(page, "hat")
    page.locator("#color").get_by_role("button", name="green").click()
    apply(page)
    browser.eventually(lambda: page.is_enabled("#photo-download"))
    changed = (pixels(download(page, "#photo-download", tmp_path / "edited")) != pixels(photo)).any(-1)
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 20 and rows.max() - rows.min() < 30 and columns.max() - columns.min() < 40


def test_an_edit_is_canceled_and_the_visit_goes_on(page) -> None:
    choose(page, "hair")
    page.locator("#photo-reference").get_by_role("radio", name="Random").check()
    page.click("#photo-advanced button")
    browser.set_number(page, "#photo-steps", 200)
    begin(page)
    page.click("#photo-apply")
    page.wait_for_function("/Step \\d+ of/.test(document.querySelector('#status-photo .text').textContent)")
    page.click("#photo-cancel")
    assert wait_for(page, "canceled").startswith("Canceled")
    assert page.locator("#photo-edits li").count() == 1
    page.locator("#photo-reference").get_by_role("radio", name="Color").check()
    apply(page)
    browser.eventually(lambda: page.locator("#photo-edits li").count() == 2)


def test_a_face_of_the_gallery_is_the_reference(page) -> None:
    page.locator("#photo-reference").get_by_role("radio", name="Gallery face").check()
    page.locator("#photo-gallery .thumbnail-item").nth(1).click()
    page.wait_for_selector("#photo-chosen strong")
    name = page.inner_text("#photo-chosen strong")
    choose(page, "hair")
    apply(page)
    browser.eventually(lambda: page.locator("#photo-edits li").last.inner_text() == f"hair: like {name}")


@pytest.mark.parametrize("width", [1440, 390])
def test_the_tab_fits_and_every_control_has_a_name(chromium, address, width: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.set_default_timeout(browser.WAIT)
    page.goto(address)
    wait_for(page, "done")
    page.click("#photo-mask button")
    page.wait_for_selector("#painter-photo .palette-list input")
    assert page.locator("#painter-photo .palette-list input").count() == len(CELEBAMASK_HQ)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.nameless(page, "#photo-studio") == []
    page.locator("#photo-compare").scroll_into_view_if_needed()
    page.click("#photo-apply")  # not below the images
    assert problems == []
    context.close()


@pytest.mark.parametrize("kind", ["text", "no face"])
def test_a_file_without_a_face_is_refused_in_a_sentence_and_the_visit_goes_on(
    page, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "photo.png"
    if kind == "text":
        file.write_text("only words")
    else:
        Image.new("RGB", (300, 200), "steelblue").save(file)
    upload(page, file)
    text = wait_for(page, "error" if kind == "text" else "done")
    assert "photo.png" in text or "face" in text
    upload(page, PHOTO)
    assert wait_for(page, "done").startswith("1 face found")
