"""What visitors do, in a real browser: one studio with the demo weights serves all of these tests."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm.data.label_text import labels_from_text
from ldm.data.labels import CELEBAMASK_HQ
from tests.studio import browser
from tests.studio.browser import (
    choose_regions,
    download,
    enter,
    make,
    open_advanced,
    pixels,
    recipe,
    says,
    set_number,
    tab,
)

EXAMPLES = browser.ROOT / "assets/faces"
FIRST = "000005"


def labels_of(name: str) -> np.ndarray:
    return np.asarray(Image.open(EXAMPLES / f"labels/{name}.png"))


def test_swapping_hair_changes_the_hair_alone(page, tmp_path) -> None:
    choose_regions(page, "hair")
    make(page)
    file = download(page, "#compare a", tmp_path)
    change = np.abs(pixels(file) - pixels(EXAMPLES / f"images/{FIRST}.png")).sum(-1)
    hair = labels_of(FIRST) == CELEBAMASK_HQ.index("hair")
    border = np.asarray(
        Image.fromarray(hair).resize((64, 64))  # the soft edge is a pixel wide at this size
    )
    grown = np.zeros_like(border)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            grown |= np.roll(border, (dy, dx), (0, 1))
    assert change[hair].mean() > 20
    assert (change[~grown] == 0).all()
    assert recipe(file)["regions"] == ["hair"]
    assert page.inner_text("#compare .note") == "The PNG contains its recipe, including the source image."
    assert "photo" in recipe(file)


def test_the_same_picture_comes_from_its_recipe(page, context, address, tmp_path) -> None:
    choose_regions(page, "hair", "lower lip")
    make(page)
    first = download(page, "#compare a", tmp_path)
    other = enter(context, address)
    with other.expect_file_chooser() as chooser:
        other.click("#recipe")
    chooser.value.set_files(first)
    assert says(other, "done") == "Done"
    again = download(other, "#compare a", tmp_path / "again")
    assert (pixels(again) == pixels(first)).all()
    open_advanced(other)
    browser.eventually(lambda: other.is_checked("#lock-seed input"))
    assert other.input_value("#seed input") == str(recipe(first)["options"]["seed"])
    other.close()


def test_a_recipe_of_another_precision_is_announced(page, tmp_path) -> None:
    make(page)
    file = download(page, "#compare a", tmp_path)
    text = PngInfo()
    text.add_text("sca-dm", json.dumps({**recipe(file), "precision": "float16"}))
    with Image.open(file) as image:
        image.save(file, pnginfo=text)
    with page.expect_file_chooser() as chooser:
        page.click("#recipe")
    browser.begin(page)
    chooser.value.set_files(file)
    assert says(page, "done").startswith("Done; the recipe was sampled in float16, here in ")


def test_regions_are_chosen_on_the_face_and_pairs_come_together(page) -> None:
    page.click("#face-mine .none")
    labels = labels_of(FIRST)
    y, x = np.argwhere(labels == CELEBAMASK_HQ.index("l_eye")).mean(0)
    box = page.locator("#face-mine canvas").bounding_box()
    at = {"x": (x + 0.5) / 64 * box["width"], "y": (y + 0.5) / 64 * box["height"]}
    page.locator("#face-mine canvas").click(position=at)
    pressed = "#face-mine .region[aria-pressed=true]"
    assert page.locator(pressed).all_inner_texts() == ["eyes"]
    page.check("#face-mine .apart")
    page.locator("#face-mine canvas").click(position=at)
    assert page.locator(pressed).all_inner_texts() == ["right eye"]


def test_painted_masks_are_exact_and_shape_the_picture(page, tmp_path) -> None:
    choose_regions(page)
    tab(page, "Labels")
    page.get_by_role("radio", name="hat", exact=True).check()
    canvas = page.locator("#painter canvas.labels")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.15 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.17 * box["height"], steps=5)
    page.mouse.up()
    page.get_by_role("radio", name="necklace", exact=True).check()
    page.get_by_role("radio", name="Fill").check()
    canvas.click(position={"x": 3, "y": 3})  # the background
    page.click("#painter .undo")
    make(page)
    painted = labels_from_text(
        recipe(download(page, "#compare a", tmp_path))["labels"], CELEBAMASK_HQ, (64, 64)
    )
    changed = painted.numpy() != labels_of(FIRST)
    assert set(painted.numpy()[changed]) == {CELEBAMASK_HQ.index("hat")}
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 6 and rows.max() <= 14 and columns.min() < 20 and columns.max() > 42
    change = np.abs(
        pixels(tmp_path / f"{FIRST}_seed{seed(page)}.png") - pixels(EXAMPLES / f"images/{FIRST}.png")
    )
    assert change[changed].mean() > 5 and (change[30:] == 0).all()


def seed(page) -> str:
    open_advanced(page)
    return page.input_value("#seed input")


def test_the_mask_is_painted_by_keyboard_too(page) -> None:
    tab(page, "Labels")
    page.get_by_role("radio", name="hat", exact=True).check()
    page.focus("#painter canvas.labels")
    page.keyboard.press("Shift+ArrowUp")
    assert "at 256, 192" in page.inner_text("#painter .says")
    page.keyboard.press("Space")
    assert page.inner_text("#painter .says") == "Painted hat"
    assert page.is_enabled("#painter .undo")
    page.keyboard.press("Control+z")
    assert page.is_disabled("#painter .undo") and page.is_enabled("#painter .redo")


def begin_many(page, steps: int) -> None:
    """Begin eight pictures, which take long enough to be met on the way."""
    open_advanced(page)

    def both_taken() -> bool:  # a control that is mounted late resets the one before
        set_number(page, "#steps", steps)
        set_number(page, "#variants", 8)
        return page.input_value("#steps input[type=number]") == str(steps)

    browser.eventually(both_taken)
    page.click("#make")


def test_cancel_stops_within_a_step_and_the_page_goes_on(page) -> None:
    choose_regions(page, "hair")
    begin_many(page, steps=200)
    page.wait_for_function(
        "/Step \\d+ of 1600, .* left/.test(document.querySelector('#status .text').textContent)"
    )
    page.wait_for_selector("#compare .so-far", state="visible")
    at = int(re.search(r"Step (\d+)", page.inner_text("#status .text"))[1])
    page.click("#cancel")
    stopped = int(re.fullmatch(r"Canceled after step (\d+) of 1600", says(page, "canceled"))[1])
    assert at <= stopped < 1600
    set_number(page, "#steps", 4)
    set_number(page, "#variants", 2)
    make(page)
    assert page.inner_text("#status .text") == "Sampled 2 images"
    assert page.locator("#history img").count() == 2


def test_what_is_finished_before_a_cancel_is_kept(page) -> None:
    choose_regions(page, "hair")
    begin_many(page, steps=100)
    page.wait_for_function(
        "+(/Step (\\d+) of 800/.exec(document.querySelector('#status .text').textContent) || [])[1] > 100"
    )
    page.click("#cancel")
    kept = re.search(r"; (\d) finished images? (is|are) kept", says(page, "canceled"))
    assert 1 <= int(kept[1]) < 8
    browser.eventually(lambda: page.locator("#history img").count() == int(kept[1]))


def test_faces_are_found_by_name_and_each_gives_its_regions(page, tmp_path) -> None:
    page.get_by_role("radio", name="Synthetic series").check()
    page.wait_for_function("document.querySelector('#page-status').textContent.includes('of 30,000 faces')")
    page.fill("#search input, #search textarea", "02999")
    page.wait_for_function("document.querySelector('#page-status').textContent.trim() == '11 faces'")
    page.locator("#role").get_by_role("radio", name="Reference").check()
    page.locator("#gallery .thumbnail-item").nth(4).click()
    page.wait_for_function("document.querySelector('#face-reference .name').textContent == '029993'")
    tab(page, "Edits")
    choose_regions(page, "hair")
    page.click("#add-part")
    page.wait_for_selector("#parts li")
    choose_regions(page, "upper lip")
    page.get_by_role("radio", name="Random", exact=True).check()
    make(page)
    parts = recipe(download(page, "#compare a", tmp_path))["description"]["parts"]
    assert parts == ["hair like 029993", "upper lip random"]


def test_a_strip_goes_from_one_style_to_the_other(page, tmp_path) -> None:
    choose_regions(page, "hair")
    tab(page, "Interpolation")
    set_number(page, "#frames", 4)
    open_advanced(page)
    page.fill("#seed input", "3")
    page.check("#lock-seed input")
    make(page, "#make-strip")
    assert page.locator("#animation .strip img").count() == 4
    for kind in ("gif", "webp"):
        with Image.open(download(page, f"#animation a.{kind}", tmp_path)) as animation:
            assert animation.n_frames == 6
    make(page)
    swapped = page.get_attribute("#compare .after", "src")
    assert page.locator("#animation .strip img").last.get_attribute("src").startswith("data:image/png")
    page.evaluate("document.querySelector('#animation input').value = 0")
    page.dispatch_event("#animation input", "input")
    assert page.get_attribute("#animation .frame", "alt") == "0 % of the way"
    assert swapped


def test_two_visitors_one_after_the_other(page, context, address) -> None:
    begin_many(page, steps=200)
    page.wait_for_function("/Step/.test(document.querySelector('#status .text').textContent)")
    other = enter(context, address)
    other.click("#make")
    other.wait_for_function("document.querySelector('#status .text').textContent == 'Queued, position 1'")
    page.click("#cancel")
    stopped = says(page, "canceled")
    assert says(other, "done") == "Done"
    finished = re.search(r"; (\d) finished", stopped)  # on a fast machine, some are before the cancel
    kept = int(finished[1]) if finished else 0
    browser.eventually(lambda: page.locator("#history img").count() == kept)  # without the other's image
    browser.eventually(lambda: other.locator("#history img").count() == 1)
    other.close()


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_every_control_has_a_name(chromium, address, width, scheme) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = enter(context, address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((c) => c < 60)"
    )
    assert dark == (scheme == "dark")
    assert browser.nameless(page, "#studio") == []
    context.close()


def test_the_main_job_is_done_by_keyboard(page) -> None:
    page.focus("#face-mine .none")
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "hair":
            break
    page.keyboard.press("Space")
    assert page.locator("#face-mine .region[aria-pressed=true]").all_inner_texts() == ["hair"]
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "make":
            break
    page.keyboard.press("Enter")
    assert says(page, "done") == "Done"


def test_programs_swap_a_hair_style(address) -> None:
    import base64
    import io

    client = pytest.importorskip("gradio_client").Client(address, verbose=False, analytics_enabled=False)
    names = client.predict(api_name="/faces")
    assert names[0] == FIRST
    answer = client.predict(names[0], names[1], ["hair"], seed=4, steps=6, api_name="/swap")
    made = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"])))).astype(int)
    change = np.abs(made - pixels(EXAMPLES / f"images/{FIRST}.png")).sum(-1)
    hair = labels_of(FIRST) == CELEBAMASK_HQ.index("hair")
    assert change[hair].mean() > 20 and (change[labels_of(FIRST) == CELEBAMASK_HQ.index("nose")] == 0).all()
    with pytest.raises(Exception, match="No face"):
        client.predict("../../etc/passwd", names[1], ["hair"], api_name="/swap")


def test_a_made_picture_is_edited_further_and_styles_are_random(page, tmp_path: Path) -> None:
    page.get_by_role("radio", name="Random face").check()
    make(page)
    page.click("#continue-editing")
    page.wait_for_function("document.querySelector('#face-mine .name').textContent == 'your image'")
    page.get_by_role("radio", name="Random", exact=True).check()
    page.click("#face-mine .all")
    make(page)
    said = recipe(download(page, "#compare a", tmp_path))["description"]
    assert said["face"] == "your image" and said["parts"][0].endswith("random")
    page.click("#face-mine .none")
    page.click("#make")
    assert says(page, "error").startswith("Nothing would change")
