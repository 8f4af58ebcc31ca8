"""The tab of whole photos in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def wait_for(page, tone: str) -> str:
    """Return the status of the photo tab, once it has this tone."""
    page.wait_for_selector(f"#status-photo [data-tone={tone}]")
    return page.inner_text("#status-photo .text")


def begin(page) -> None:
    """Clear the status, so that the next one can be waited for."""
    page.evaluate("document.querySelector('#status-photo [data-tone]').dataset.tone = ''")


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
    assert edits.all_inner_texts() == ["hair: #7a3b2e"]
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
