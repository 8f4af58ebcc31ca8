"""A small server with the endpoints of the Hugging Face hub that uploads and downloads of models use."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import yaml

SHA = "0123456789abcdef0123456789abcdef01234567"  # of the only commit


class Hub(ThreadingHTTPServer):
    """Holds the files of models in memory.

    Attributes:
        models: {owner/name: {file: content}}.
        validated: model cards that were sent for validation.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, dict[str, bytes]] = {}
        self.validated: list[str] = []

    @property
    def address(self) -> str:
        """URL for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlparse(self.path).path
        if path == "/api/validate-yaml":
            card = json.loads(content)["content"]
            self.server.validated.append(card)
            facts = yaml.safe_load(card.split("---")[1])
            errors = [] if "license" in facts else [{"message": '"license" is required'}]
            self._json({"errors": errors, "warnings": []}, 400 if errors else 200)
        elif path == "/api/repos/create":
            request = json.loads(content)
            name = f"{request.get('organization') or 'someone'}/{request['name']}"
            self.server.models.setdefault(name, {})
            self._json({"url": f"{self.server.address}/{name}", "name": name, "id": name})
        elif "/preupload/" in path:
            files = json.loads(content)["files"]
            self._json(
                {
                    "files": [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in files
                    ]
                }
            )
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in content.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.models[name][entry["value"]["path"]] = base64.b64decode(
                        entry["value"]["content"]
                    )
            self._json(
                {"commitUrl": f"{self.server.address}/{name}/commit/{SHA}", "commitOid": SHA, "success": True}
            )
        else:
            self._json({"error": path}, 404)

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if path.startswith("/api/models/"):
            name = "/".join(path.split("/")[3:5])
            if name not in self.server.models:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()
                return
            files = self.server.models[name]
            if "/tree/" in path:
                self._json(
                    [{"type": "file", "path": file, "size": len(files[file]), "oid": SHA} for file in files]
                )
            else:
                self._json({"id": name, "sha": SHA, "siblings": [{"rfilename": file} for file in files]})
        elif "/resolve/" in path:
            name, _, rest = path[1:].partition("/resolve/")
            content = self.server.models[name][rest.partition("/")[2]]
            self.send_response(200)
            self.send_header("X-Repo-Commit", SHA)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)
        else:
            self._json({"error": path}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _json(self, content: object, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def hub() -> Iterator[Hub]:
    """Run a hub on a free port."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
