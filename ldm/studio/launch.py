"""Start the web server: local only by default, without telemetry."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ldm.checkpoints.locate import FACE_PARSER
from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing import FaceParser
from ldm.studio import page
from ldm.studio.faces import face_gallery
from ldm.studio.jobs import Jobs
from ldm.studio.models import Models
from ldm.studio.options import EXAMPLES, HOME, PASSWORD, USER, chosen_checkpoint
from ldm.studio.uploads import MAX_BYTES

ROOT = Path(__file__).resolve().parents[2]
HEADERS = {
    # The page loads nothing from other hosts. Gradio evaluates its templates with eval.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class SafeHeaders:
    """Adds HEADERS to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        await self.app(scope, receive, sent)


def prepare(options: argparse.Namespace, root: Path = ROOT) -> gr.Blocks:
    """Load model and faces, and build the page.

    Raises:
        ValueError, OSError: an unusable argument.
    """
    models = Models(chosen_checkpoint(root, options.checkpoint), options)
    found = face_gallery(options.dataset, root / EXAMPLES, models.pipe.label_set, models.pipe.size)
    parser, label_set = None, models.pipe.label_set
    if options.parser is not None or label_set.regions == CELEBAMASK_HQ.regions:
        parser = FaceParser.from_pretrained(
            options.parser or FACE_PARSER, device=options.device, label_set=label_set
        )
    return page.build(models, found, parser, Jobs(options.max_queue))


def serve(built: gr.Blocks, options: argparse.Namespace, wait: bool = True) -> str:
    """Start the server and return its address; with `wait`, only after it has stopped."""
    password = os.environ.get(PASSWORD)
    built.queue(default_concurrency_limit=None, max_size=16 * (options.max_queue + 1), api_open=False)
    arguments: dict[str, Any] = {
        "server_name": options.host or HOME,
        "server_port": options.port,
        "share": options.share,
        "auth": (USER, password) if password else None,
        "inbrowser": options.browser,
        "max_file_size": MAX_BYTES,
        "theme": page.theme(),
        "css_paths": [page.CSS],
        "app_kwargs": {"middleware": [Middleware(SafeHeaders)]},
    }
    _, address, _ = built.launch(
        **arguments,
        prevent_thread_lock=not wait,
        quiet=True,
        show_error=False,
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        state_session_capacity=page.VISITORS,
    )
    return address


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Run until stopped; return 0, or 2 for a usage error."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    try:
        built = prepare(options)
        address = serve(built, options, wait=False)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"The studio is running at {address} - press Ctrl-C to stop it", flush=True)
    if options.no_password:
        print(f"without a password: {options.no_password}", flush=True)
    built.block_thread()
    return 0
