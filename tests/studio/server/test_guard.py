"""The guard: hosts, origins, text, uploads, logins and readers, before a small app and before Gradio."""

import asyncio
import os
import threading
import time
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from ldm.studio.jobs import CancelledError, Jobs, QueueFullError
from ldm.studio.options import PASSWORD, USER
from ldm.studio.server.guard import Guard
from ldm.studio.server.logins import FREE, LoginDelay, network_of
from ldm.studio.server.network import HostNames
from ldm.studio.server.presence import Presence
from ldm.studio.server.upload_folder import MAX_REQUEST, PREFIX, UploadFolder
from scripts import draw_studio
from tests.studio import browser


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body())


async def login(request: Request) -> PlainTextResponse:
    return PlainTextResponse("", 200 if await request.body() == b"right" else 400)


@pytest.fixture
def guard(tmp_path, monkeypatch) -> Guard:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    routes = [Route(path, echo, methods=["GET", "POST"]) for path in ("/", "/upload")]
    app = Starlette(routes=[*routes, Route("/login", login, methods=["POST"])])
    names = HostNames("127.0.0.1", "https://faces.example/studio")
    return Guard(app, names, UploadFolder(limit=3000), Presence(), LoginDelay())


def ask(guard: Guard, method: str = "GET", path: str = "/", **how) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(guard, client=("192.0.2.7", 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:7860") as client:
            return await client.request(method, path, **how)

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("127.0.0.1:7860", 200),
        ("[::1]:7860", 200),
        ("faces.example", 200),
        ("rebound.example", 403),
        ("localhost.rebound.example:7860", 403),
        ("127.0.0.1.rebound.example", 403),
        ("192.0.2.1", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_hosts_of_other_names_are_refused(guard, host, status) -> None:
    assert ask(guard, headers={"host": host}).status_code == status
    if status == 403 and host:
        assert ask(guard, headers={"x-forwarded-host": host}).status_code == 403


def test_a_server_for_all_networks_is_found_by_address_but_not_by_foreign_names() -> None:
    names = HostNames("0.0.0.0")
    assert "192.0.2.1:7860" in names and "rebound.example" not in names
    assert "abc.gradio.live" not in names and "abc.gradio.live" in HostNames("127.0.0.1", share=True)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "http://localhost.evil.example:7860"]
)
def test_pages_of_other_origins_are_refused(guard, origin) -> None:
    for method, path in (("GET", "/"), ("POST", "/upload"), ("OPTIONS", "/upload")):
        answer = ask(guard, method, path, headers={"origin": origin})
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["http://localhost:7860", "https://faces.example"])
def test_pages_of_the_studio_are_answered(guard, origin) -> None:
    answer = ask(guard, "POST", "/upload", headers={"origin": origin}, content=b"photo")
    assert answer.text == "photo" and "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"text": "\\ud83d\\ude00"}', 200),
        (b'{"text": "\\ud83d"}', 400),
        (b'{"\\udc00": 1}', 400),
        (b'["\xff"]', 400),
        (b"[" * 100_000 + b'"\\ud800"', 400),
        (b"no JSON", 200),
    ],
)
def test_text_that_is_not_unicode_is_refused(guard, body, status) -> None:
    assert ask(guard, "POST", content=body).status_code == status


def test_uploads_are_bounded_and_the_oldest_are_deleted(guard) -> None:
    folder = guard.uploads.path
    assert folder.stat().st_mode & 0o077 == 0
    for age, name in ((30, "old"), (20, "newer"), (10, "newest")):
        (folder / name).write_bytes(bytes(1000))
        os.utime(folder / name, (time.time() - age,) * 2)
    assert ask(guard, "POST", "/upload", content=bytes(1500)).status_code == 200
    assert [file.name for file in folder.iterdir()] == ["newest"]
    refused = ask(guard, "POST", "/upload", headers={"content-length": str(MAX_REQUEST + 1)})
    assert refused.status_code == 413
    guard.uploads.remove()
    assert not folder.exists()


def test_wrong_passwords_wait_longer_each_time(guard, monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for _ in range(FREE):
        assert ask(guard, "POST", "/login", content=b"wrong").status_code == 400
    delays = []
    for _ in range(4):
        refused = ask(guard, "POST", "/login", content=b"right")
        assert refused.status_code == 429
        delays.append(int(refused.headers["retry-after"]))
        now += delays[-1]
        assert ask(guard, "POST", "/login", content=b"wrong").status_code == 400
    assert delays == [1, 2, 4, 8]
    now += 16
    assert ask(guard, "POST", "/login", content=b"right").status_code == 200
    assert ask(guard, "POST", "/login", content=b"wrong").status_code == 400  # counted from the beginning
    assert guard.logins.wait("192.0.2.7") == 0


def test_addresses_of_one_network_count_together() -> None:
    assert network_of({"client": ("2001:db8::1", 1)}) == network_of({"client": ("2001:db8::2", 1)})
    assert network_of({"client": ("192.0.2.1", 1)}) != network_of({"client": ("192.0.2.2", 1)})


def test_a_reader_who_leaves_is_noticed_at_once() -> None:
    async def endless(request: Request) -> StreamingResponse:
        async def events():
            yield b"data: 1\n\n"
            await asyncio.sleep(60)

        return StreamingResponse(events())

    app = Starlette(routes=[Route("/queue/data", endless)])
    presence = Presence()
    guard = Guard(app, HostNames("127.0.0.1"), None, presence, LoginDelay())

    async def read() -> tuple[float, float]:
        left, started = asyncio.Event(), asyncio.Event()

        async def receive():
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message) -> None:
            started.set()

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/queue/data",
            "query_string": b"session_hash=anna",
            "headers": [(b"host", b"localhost")],
        }
        reading = asyncio.create_task(guard(scope, receive, send))
        await started.wait()
        during = presence.absent(("anna",), 0)
        left.set()
        await asyncio.wait_for(reading, 10)
        return during, presence.absent(("anna",), 0)

    during, after = asyncio.run(read())
    assert during == 0 and 0 < after < 10


def test_a_job_without_a_reader_makes_room_for_the_next() -> None:
    jobs, waiting = Jobs(limit=2), threading.Event()
    steps: list[int] = []

    def endless(progress, preview):
        for done in range(1, 10**9):
            steps.append(done)
            progress(done, 10**9)
        return []

    def absent(since: float) -> float:
        return 1.0 if waiting.is_set() else 0.0

    reports = jobs.run("anna", endless, absent)
    next(reports)
    with pytest.raises(QueueFullError, match="in progress"):
        next(jobs.run("anna", endless))
    other = jobs.run("bert", lambda progress, preview: [])
    assert next(other).jobs_ahead == 1
    waiting.set()
    assert list(other)[-1].made == []
    assert isinstance(list(reports)[-1].error, CancelledError) and steps


def test_a_studio_behind_proxies_with_a_password(monkeypatch) -> None:
    """One process: proxies that do not exist, a port of the environment, 429, and a folder that is removed."""
    for name in ("HTTP_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    monkeypatch.setenv("GRADIO_NUM_PORTS", "many")
    monkeypatch.setenv(PASSWORD, "long and secret")

    def folders() -> set[Path]:
        return set(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"{PREFIX}*"))

    before = folders()
    with (
        draw_studio.studio("--checkpoint", "checkpoints/demo") as address,
        httpx.Client(base_url=address, trust_env=False, timeout=60) as visitor,
    ):
        (folder,) = folders() - before
        assert visitor.get("config").status_code == 401
        guess = {"username": USER, "password": "guess"}
        answers = [visitor.post("login", data=guess).status_code for _ in range(FREE + 5)]
        assert set(answers[:FREE]) == {400} and set(answers[FREE + 1 :]) <= {400, 429} and 429 in answers
        browser.eventually(
            lambda: visitor.post("login", data={**guess, "password": "long and secret"}).status_code == 200
        )
        assert visitor.get("config").status_code == 200
        assert "default-src 'self'" in visitor.get("").headers["content-security-policy"]
    assert not folder.exists()
