"""A studio and a browser, shared by all tests of the page."""

from collections.abc import Iterator

import pytest

from ldm.studio.options import PASSWORD
from scripts import draw_studio
from tests.studio import browser


@pytest.fixture(scope="package")
def address() -> Iterator[str]:
    browser.chromium()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(PASSWORD, raising=False)
        with draw_studio.studio("--checkpoint", "checkpoints/demo") as found:
            yield found


@pytest.fixture(scope="package")
def chromium() -> Iterator[object]:
    path = browser.chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=draw_studio.FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def context(chromium) -> Iterator[object]:
    opened = chromium.new_context(viewport={"width": 1440, "height": 900})
    yield opened
    opened.close()


@pytest.fixture
def page(context, address) -> Iterator[object]:
    """A new visit; the browser keeps the page's scripts from the last one."""
    page = browser.enter(context, address)
    yield page
    page.close()
