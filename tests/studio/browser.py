"""What tests of the page share: opening it in Debian's chromium, choosing, making, reading what was made."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
WAIT = 60_000  # milliseconds; only reached where something is broken


def chromium() -> str:
    """Return the browser's path, or skip the test where there is none."""
    pytest.importorskip("playwright", reason="wants playwright: pip install -r requirements-dev.txt")
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("wants Debian's chromium: apt-get install chromium")
    return found


def enter(context, address: str):
    """Open the tab of aligned faces and wait until both faces are there."""
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.goto(address)
    page.wait_for_selector("#status-photo [data-state=done]")  # the last event of opening the page
    tab(page, "Aligned faces")
    page.wait_for_selector("#face-mine img[src]")
    page.wait_for_selector("#face-reference img[src]")
    return page


def choose_regions(page, *names: str) -> None:
    """Choose exactly these regions by name."""
    page.click("#face-mine .none")
    for name in names:
        page.get_by_role("button", name=name, exact=True).click()


def begin(page) -> None:
    """Clear the status, so that the next one can be waited for."""
    page.evaluate("document.querySelector('#status [data-state]').dataset.state = ''")


def make(page, button: str = "#make") -> None:
    """Make pictures and wait for them."""
    begin(page)
    page.click(button)
    page.wait_for_selector("#status [data-state=done]")


def says(page, state: str) -> str:
    """Return what the status says, once it says it in this state."""
    page.wait_for_selector(f"#status [data-state={state}]")
    return page.inner_text("#status .text")


def set_number(page, slider: str, value: int) -> None:
    """Type a number beside a slider until the slider has it: what is typed while a tab still mounts is lost."""
    typed = page.locator(f"{slider} input[type=number]")

    def taken() -> bool:
        typed.fill(str(value))
        typed.press("Tab")
        page.wait_for_timeout(100)
        shown = (typed.input_value(), page.input_value(f"{slider} input[type=range]"))
        return shown == (str(value), str(value))

    eventually(taken)


def tab(page, name: str) -> None:
    """Open a tab."""
    page.get_by_role("tab", name=name, exact=True).click()


def open_advanced(page) -> None:
    """Unfold the controls under Advanced, unless they are."""
    if not page.is_visible("#seed input"):
        page.click("#advanced button")
        page.wait_for_selector("#seed input")


def nameless(page, part: str) -> list[str]:
    """Return the visible controls of a part of the page that a screen reader could not name."""
    found: list[str] = page.evaluate(
        """(part) => [...document.querySelectorAll(`${part} :is(button, input, textarea)`)].filter(
        (e) => e.offsetParent && e.type != 'file' && !(e.innerText || e.ariaLabel || e.title
        || (e.labels && e.labels.length) || e.getAttribute('aria-labelledby'))
        ).map((e) => e.outerHTML.slice(0, 200))""",
        part,
    )
    return found


def download(page, selector: str, folder: Path) -> Path:
    """Save what a link downloads."""
    with page.expect_download() as found:
        page.click(selector)
    file = folder / found.value.suggested_filename
    found.value.save_as(file)
    return file


def pixels(file: Path) -> np.ndarray:
    """Return a picture as int (H, W, 3)."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def recipe(file: Path) -> dict:
    """Return the recipe that a PNG carries."""
    with Image.open(file) as image:
        image.load()
        return json.loads(image.info["sca-dm"])


def eventually(holds, seconds: float = 30) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)
