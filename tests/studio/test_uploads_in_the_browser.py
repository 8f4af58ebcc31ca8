"""Uploads and requests for files in a real browser: own photos, broken files, forged requests."""

import pytest
from PIL import Image

from ldm.studio.server.upload_folder import MAX_BYTES
from tests.studio import browser
from tests.studio.browser import download, make, recipe, says, tab

EXAMPLES = browser.ROOT / "assets/faces"
FIRST = "000005"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"broken" * 50, "The photo is"),
        (b"only words, whatever the name says", "The photo is no"),
    ],
    ids=["broken", "text"],
)
def test_files_that_are_no_pictures_are_refused_in_a_sentence(page, tmp_path, content, sentence) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(content)
    tab(page, "Upload")
    page.set_input_files("#own-photo input", file)
    page.set_input_files("#own-mask input", EXAMPLES / f"labels/{FIRST}.png")
    page.wait_for_selector("#own-mask .file-preview")
    page.click("#own-use")
    assert page.wait_for_selector(".toast-body.error").inner_text().count(sentence)
    page.click("#make")
    assert says(page, "done") == "Done"


def test_files_with_too_many_bytes_or_pixels_are_refused(page, tmp_path) -> None:
    tab(page, "Upload")
    (tmp_path / "long.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(MAX_BYTES))
    page.set_input_files("#own-photo input", tmp_path / "long.png")
    assert "size" in page.wait_for_selector(".toast-body.error").inner_text().lower()
    page.locator(".toast-close").first.click()
    Image.new("1", (9000, 9000)).save(tmp_path / "wide.png")
    page.set_input_files("#own-photo input", tmp_path / "wide.png")
    page.wait_for_selector("#own-photo .file-preview")
    page.set_input_files("#own-mask input", EXAMPLES / f"labels/{FIRST}.png")
    page.wait_for_selector("#own-mask .file-preview")
    page.click("#own-use")
    assert "64 million" in page.wait_for_selector(".toast-body.error").inner_text()


def test_an_own_photo_with_its_mask_is_edited(page, tmp_path) -> None:
    tab(page, "Upload")
    page.set_input_files("#own-photo input", EXAMPLES / "images/000041.png")
    page.set_input_files("#own-mask input", EXAMPLES / "labels/000041.png")
    page.wait_for_selector("#own-mask .file-preview")
    page.click("#own-use")
    page.wait_for_function("document.querySelector('#face-mine .name').textContent == 'your photo'")
    make(page)
    assert recipe(download(page, "#compare a", tmp_path))["description"]["face"] == "your photo"


def test_nothing_is_fetched_from_elsewhere_and_no_path_is_opened(page, address) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    tab(page, "Aligned faces")
    page.wait_for_selector("#gallery img")
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    for path in (
        "/etc/passwd",
        str(browser.ROOT / "setup.py"),
        str(browser.ROOT / "checkpoints/demo/config.yaml"),
    ):
        answer = page.request.get(f"{address}gradio_api/file={path}")
        assert answer.status in (403, 404), path


def test_a_path_in_the_place_of_an_upload_is_refused(page, address) -> None:
    """As a forged request would send it: the file was never uploaded."""
    config = page.request.get(f"{address}config").json()
    photo = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "own-photo")
    use = next(one for one in config["dependencies"] if photo in one["inputs"])
    forged = {"path": str(EXAMPLES / f"images/{FIRST}.png"), "meta": {"_type": "gradio.FileData"}}

    def answer(photo_sent, session: str) -> str:
        sent = {"data": [{}, photo_sent, None, None], "fn_index": use["id"], "session_hash": session}
        assert page.request.post(f"{address}gradio_api/queue/join", data=sent).ok
        return page.request.get(f"{address}gradio_api/queue/data?session_hash={session}").text()

    assert "select your photo" in answer(
        None, "no-session"
    )  # our handler's error: so far the request is right
    refused = answer(forged, "forged")
    assert '"success":false' in refused and '"error":null' in refused  # before any code of ours had it
