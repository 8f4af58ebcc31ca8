"""Take the README's screenshot of the studio, assets/studio.png, with the default weights.

Needs Debian's chromium and `pip install -r requirements-dev.txt`.
"""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 120_000  # milliseconds
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


@contextmanager
def studio(*arguments: str) -> Iterator[str]:
    """Run gradio_img2img.py on a free port, on the CPU; yields the page's address.

    Raises:
        RuntimeError: it did not start; with its output.
    """
    process = subprocess.Popen(
        [sys.executable, "gradio_img2img.py", "--device", "cpu", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    output = ""
    try:
        for line in process.stdout:
            output += line
            if address := re.search(r"http://[\d.:]+/", line):
                # A full pipe would block the server.
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield address[0]
                return
        raise RuntimeError(f"the studio did not start: {output}")
    finally:
        process.terminate()
        process.wait(20)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "assets/studio.png", help="output file")
    parser.add_argument("--width", type=int, default=1440, help="width of the page in pixels (default: 1440)")
    parser.add_argument(
        "--height", type=int, default=1010, help="height of the page in pixels (default: 1010)"
    )
    parser.add_argument("--dark", action="store_true", help="as on a dark desktop")
    options = parser.parse_args(arguments)
    browser = shutil.which("chromium")
    if browser is None:
        parser.error("chromium is not installed: apt-get install chromium")

    from PIL import Image

    with studio() as address:
        screen = _photograph(address, browser, options)
    screenshot = Image.open(io.BytesIO(screen)).convert("RGB")
    # A palette halves the file; with dithering, the difference is not visible.
    palette = screenshot.quantize(method=Image.Quantize.FASTOCTREE)
    screenshot.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")
    return 0


def _photograph(address: str, browser: str, options: argparse.Namespace) -> bytes:
    """Return a screenshot of the first tab with the example photo and its edit, as PNG."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        page = opened.new_page(
            viewport={"width": options.width, "height": options.height},
            color_scheme="dark" if options.dark else "light",
        )
        page.goto(address)
        page.wait_for_selector("#status-photo [data-state=done]", timeout=TIMEOUT)
        page.wait_for_selector("#photo-compare img", timeout=TIMEOUT)
        page.wait_for_timeout(1500)  # until images are painted
        screen = page.screenshot()
        opened.close()
    return screen


if __name__ == "__main__":
    sys.exit(main())
