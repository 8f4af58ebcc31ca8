"""UploadFolder: the temporary folder of one server, private, bounded and removed with it."""

import atexit
import os
import shutil
import tempfile
import threading
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BYTES = 50_000_000  # of one uploaded file: a phone's photo of 108 megapixels has 40 MB
MAX_REQUEST = 2 * MAX_BYTES
MAX_TOTAL = 1_000_000_000
PREFIX = "sca-dm-studio-"


class UploadFolder:
    """Everything the server writes, in a folder that only its user can read."""

    def __init__(self, limit: int = MAX_TOTAL) -> None:
        """Create the folder.

        Args:
            limit: number of bytes above which the oldest files are deleted.
        """
        self.limit = limit
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))  # mode 0700
        self._lock = threading.Lock()
        atexit.register(self.remove)

    def use(self) -> None:
        """Make Gradio use the folder; call it before the page is built."""
        os.environ["GRADIO_TEMP_DIR"] = str(self.path)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def make_room(self, size: int = 0) -> None:
        """Delete the oldest files until `size` more bytes fit."""
        with self._lock:
            found = []
            for folder, _, names in os.walk(self.path):
                for name in names:
                    try:
                        facts = os.stat(os.path.join(folder, name))
                    except OSError:
                        continue  # deleted meanwhile
                    found.append((facts.st_mtime, facts.st_size, os.path.join(folder, name)))
            total = sum(one[1] for one in found) + size
            for _, length, path in sorted(found):
                if total <= self.limit:
                    break
                Path(path).unlink(missing_ok=True)
                total -= length

    async def receive(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward an upload of at most MAX_REQUEST bytes, after making room for it."""
        too_large = PlainTextResponse(
            f"An upload must have at most {MAX_REQUEST // 1_000_000} MB; resize the photo first.", 413
        )
        length = Headers(scope=scope).get("content-length", "")
        expected = int(length) if length.isdecimal() and len(length) < 20 else MAX_REQUEST
        if expected > MAX_REQUEST:
            await too_large(scope, receive, send)
            return
        self.make_room(expected)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return {"type": "http.disconnect"} if seen > MAX_REQUEST else message

        await app(scope, counted, send)
