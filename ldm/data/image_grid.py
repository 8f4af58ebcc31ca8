"""Image grids with titled columns, and contact sheets."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MARGIN, TEXT_SIZE = 4, 14
PAPER, INK = (255, 255, 255), (0, 0, 0)


def draw_grid(
    columns: Mapping[str, Tensor], cell: int = 128, rows: Sequence[str] | None = None
) -> Image.Image:
    """Draw one row per sample and one titled column per entry.

    Args:
        columns: title -> (B, 3, H, W), float in [-1, 1] (clamped) or uint8.
        cell: minimum side of an image in pixels; smaller images are enlarged by an integer factor, nearest
            neighbor.
        rows: label of each row.

    Raises:
        ValueError: no columns, or a wrong shape.
    """
    if not columns:
        raise ValueError("a grid needs at least one column")
    cells = {
        title: [_enlarged(row, cell) for row in _to_bytes(title, images)] for title, images in columns.items()
    }
    width = max(image.width for column in cells.values() for image in column) + MARGIN
    height = max(image.height for column in cells.values() for image in column) + MARGIN
    titles = {title: _wrap(title, width - MARGIN) for title in cells}
    head = max(text.count("\n") + 1 for text in titles.values()) * (TEXT_SIZE + 4) + MARGIN
    count = max(len(column) for column in cells.values())
    names = [_wrap(name, width - MARGIN) for name in rows or []]
    start = MARGIN + (width if names else 0)
    grid = Image.new("RGB", (start + len(cells) * width, head + count * height), PAPER)
    draw = ImageDraw.Draw(grid)
    for row, name in enumerate(names):
        draw.multiline_text((MARGIN, head + row * height), name, INK, font=_font())
    for number, (title, column) in enumerate(cells.items()):
        left = start + number * width
        draw.multiline_text((left, 2), titles[title], INK, font=_font())
        for row, image in enumerate(column):
            grid.paste(image, (left, head + row * height))
    return grid


def draw_contact_sheet(
    cells: Mapping[str, tuple[Image.Image, Image.Image]], columns: int = 3, side: int = 256
) -> Image.Image:
    """Draw named pairs of RGB images, such as photo and label map, in rows.

    Args:
        cells: name -> the two images.
        columns: pairs in a row.
        side: side of an image in pixels.
    """
    if not cells:
        raise ValueError("a contact sheet needs at least one pair")
    width, height = 2 * side + 2 * MARGIN, side + TEXT_SIZE + 3 * MARGIN
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (min(columns, len(cells)) * width + MARGIN, rows * height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (name, images) in enumerate(cells.items()):
        left, top = MARGIN + i % columns * width, MARGIN + i // columns * height
        while name and _font().getlength(name) > 2 * side:
            name = name[1:]  # the end of a long name tells more
        draw.text((left, top), name, INK, font=_font())
        for j, image in enumerate(images):
            method = Image.Resampling.BICUBIC if j == 0 else Image.Resampling.NEAREST
            sheet.paste(image.resize((side, side), method), (left + j * side, top + TEXT_SIZE + MARGIN))
    return sheet


def _to_bytes(title: str, images: Tensor) -> list[np.ndarray]:
    """Return (H, W, 3) uint8 arrays, rounded."""
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"column {title!r} must have shape (B, 3, H, W), got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        images = ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return list(images.permute(0, 2, 3, 1).cpu().numpy())


def _enlarged(pixels: np.ndarray, cell: int) -> Image.Image:
    image = Image.fromarray(pixels)
    factor = max(1, -(-cell // min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT_SIZE)


def _wrap(title: str, width: int) -> str:
    """Break a title between words so that each line fits."""
    font, lines = _font(), [""]
    for word in title.replace("_", " ").split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
