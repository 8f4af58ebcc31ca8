"""Guard: the outermost ASGI layer, which decides what reaches Gradio."""

import asyncio
import json
import re
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ldm.studio.server.logins import LoginDelay
from ldm.studio.server.network import HostNames
from ldm.studio.server.presence import Presence
from ldm.studio.server.upload_folder import UploadFolder
from ldm.studio.text import is_unicode

HEADERS = {
    # The page loads nothing from other hosts. Gradio evaluates its templates with eval.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
MAX_JSON = 32_000_000  # bytes of a request other than an upload: a label map of 512 x 512 has at most 2 MB
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Guard:
    """Refuses foreign hosts and origins, repeated logins, large bodies and text that is not Unicode."""

    def __init__(
        self, app: ASGIApp, names: HostNames, uploads: UploadFolder, presence: Presence, logins: LoginDelay
    ) -> None:
        self.app, self.names = app, names
        self.uploads, self.presence, self.logins = uploads, presence, logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or forward it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refused(scope)
        if scope["type"] == "websocket":  # the studio has none
            await send({"type": "websocket.close", "code": 1008})
        elif refusal is not None:
            await refusal(scope, receive, _with_headers(send))
        else:
            await self._forward(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        forwarded = headers.get("x-forwarded-host", "").partition(",")[0].strip()
        for name in (headers.get("host", ""), *([forwarded] if forwarded else [])):
            if name not in self.names:
                return PlainTextResponse(
                    f"The studio does not know the host {name[:80]!r}; behind a reverse proxy start it with "
                    "--root-path https://HOST/PATH",
                    403,
                )
        origin = headers.get("origin")
        if origin is not None and not self._own(origin, headers):
            return PlainTextResponse("Requests of pages of other sites are refused.", 403)
        return None

    def _own(self, origin: str, headers: Headers) -> bool:
        """Return whether an Origin header is that of a page of this studio."""
        found = urlsplit(origin).netloc.lower()
        asked = [headers.get("host"), headers.get("x-forwarded-host")]
        if found in [name.lower() for name in asked if name]:
            return True
        # Behind a proxy that rewrites Host and port, the name alone must do. On this machine other ports are
        # other programs.
        return bool(found) and self.names.public(found)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"].rstrip("/"), scope["method"]
        stream = _stream(path, scope["query_string"].decode("latin-1")) if method == "GET" else None
        if stream is not None:
            await self._follow(stream, scope, receive, send)
        elif method == "POST" and path.endswith("/upload"):
            await self.uploads.receive(self.app, scope, receive, send)
        elif method == "POST" and path.endswith("/login"):
            await self.logins.receive(self.app, scope, receive, send)
        elif method in ("POST", "PUT", "PATCH"):
            await self._check_body(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _check_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a body, and forward it if it is small and all its text is Unicode."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > MAX_JSON:
                await PlainTextResponse("The request is too large.", 413)(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        if not _is_text(bytes(body)):
            await PlainTextResponse("The request holds text that is not valid Unicode.", 400)(
                scope, receive, send
            )
            return
        await self.app(scope, _replayed(bytes(body), receive), send)

    async def _follow(self, stream: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward an event stream and note when its reader leaves, which Gradio notices 15 s later."""
        left = asyncio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.presence.close(stream)
            left.set()

        async def received() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        self.presence.open(stream)
        watching = asyncio.create_task(watch())
        try:
            await self.app(scope, received, send)
        finally:
            if not left.is_set():
                self.presence.close(stream)
            watching.cancel()


def _stream(path: str, query: str) -> str | None:
    """Return the session or event whose results a request reads; None for other requests."""
    if path.endswith("/queue/data"):
        return parse_qs(query).get("session_hash", [""])[0]
    parts = path.split("/")
    if len(parts) >= 3 and "call" in (parts[-3], *parts[-4:-3]):
        return parts[-1]
    return None


def _is_text(body: bytes) -> bool:
    """Return whether a body is valid UTF-8, JSON escapes included."""
    try:
        text = body.decode()
        return is_unicode(json.loads(text)) if SURROGATE.search(body) else True
    except (UnicodeDecodeError, RecursionError):
        return False
    except ValueError:
        return True  # not JSON: Gradio answers


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that returns a body that was already read."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sent
