"""Animated GIF and WebP."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ldm.atomic_files import write_file
from ldm.data.images import to_uint8


def save_animation(path: str | Path, frames: Sequence[Tensor], seconds: float = 0.12) -> None:
    """Write frames (3, H, W) in [-1, 1] as a looping GIF or WebP, by the suffix of `path`.

    Raises:
        ValueError: no frames, or an unsupported suffix.
    """
    try:
        data = encode_animation(Path(path).suffix.lower().lstrip("."), frames, seconds)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    write_file(path, lambda file: file.write(data))


def encode_animation(kind: str, frames: Sequence[Tensor], seconds: float = 0.12) -> bytes:
    """Encode a looping "gif" or "webp"; arguments as in `save_animation`.

    Raises:
        ValueError: no frames, or an unsupported format.
    """
    if not frames or kind not in ("gif", "webp"):
        raise ValueError(
            f"expected at least one frame and the suffix .gif or .webp, got {len(frames)} frames and {kind!r}"
        )
    first, *others = [Image.fromarray(to_uint8(frame)) for frame in frames]
    file = io.BytesIO()
    first.save(
        file, kind.upper(), save_all=True, append_images=others, duration=round(1000 * seconds), loop=0
    )
    return file.getvalue()
