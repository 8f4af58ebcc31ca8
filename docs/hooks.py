"""Hooks of mkdocs: pages link to files outside docs/, such as ../assets/studio.png, as they do on a code host."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

IMAGES = ("assets/studio.png", "assets/photo_edit.jpg", "assets/swap_hair.png")
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the images of the pages, and the pages in the root folder, to the site."""
    for path in IMAGES:
        files.append(File.generated(config, path, abs_src_path=path))
    for path, page in PAGES.items():
        text = Path(path).read_text().replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links to these images and pages into links within the site."""
    for path in IMAGES:
        markdown = markdown.replace(f"](../{path}", f"]({path}")
    for path, page in PAGES.items():
        markdown = markdown.replace(f"](../{path}", f"]({page}")
    return markdown
