"""Frames as an animation that browsers show."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ldm.atomic_files import write_file
from ldm.data.images import to_uint8


def save_animation(path: str | Path, frames: Sequence[Tensor], seconds: float = 0.12) -> None:
    """Write frames (3, H, W) in [-1, 1] as an endless GIF or WebP, whichever `path` ends in.

    Raises:
        ValueError: no frames, or another ending.
    """
    try:
        data = encode_animation(Path(path).suffix.lower().lstrip("."), frames, seconds)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    write_file(path, lambda file: file.write(data))


def encode_animation(kind: str, frames: Sequence[Tensor], seconds: float = 0.12) -> bytes:
    """Return the bytes of an endless "gif" or "webp"; arguments as `save_animation`.

    Raises:
        ValueError: no frames, or another kind.
    """
    if not frames or kind not in ("gif", "webp"):
        raise ValueError(f"{len(frames)} frames; wanted at least one, and a name in .gif or .webp")
    first, *others = [Image.fromarray(to_uint8(frame)) for frame in frames]
    file = io.BytesIO()
    first.save(
        file, kind.upper(), save_all=True, append_images=others, duration=round(1000 * seconds), loop=0
    )
    return file.getvalue()
