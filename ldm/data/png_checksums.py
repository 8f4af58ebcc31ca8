"""PNG checksums, which Pillow does not always verify: a flipped bit would change labels."""

import struct
import zlib
from typing import Any

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BLOCK = 2**20  # bytes decompressed at once


def verify_png(image: Image.Image) -> None:
    """Verify an opened, not yet decoded PNG: CRC-32 of every chunk, Adler-32 of the pixels.

    Raises:
        ValueError: a wrong checksum or a truncated file; the message names the chunk.
    """
    file: Any = getattr(image, "fp", None)
    if image.format != "PNG" or file is None:
        return
    position = file.tell()
    file.seek(0)
    content = memoryview(file.read())
    file.seek(position)
    _verify(content)


def _verify(content: memoryview) -> None:
    unpacker, place = zlib.decompressobj(), len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if place + 12 > len(content):
            raise ValueError("the file ends before its last chunk")
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            raise ValueError(f"the file ends within its chunk {kind!r}")
        if zlib.crc32(content[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise ValueError(f"the checksum of its chunk {kind!r} is wrong: a bit has changed")
        if kind == b"IDAT":
            _unpack(unpacker, content[place + 8 : end])
        place = end + 4
    if not unpacker.eof:
        raise ValueError("its pixels end early")


def _unpack(unpacker: Any, data: memoryview) -> None:
    """Decompress and discard part of a zlib stream with bounded memory; its end verifies the Adler-32."""
    rest: Any = data
    while len(rest) and not unpacker.eof:
        unpacker.decompress(rest, BLOCK)
        rest = unpacker.unconsumed_tail
