"""Start the web server: local only by default, without telemetry."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from gradio.tunneling import CURRENT_TUNNELS

from ldm.bundle import ROOT
from ldm.checkpoints.locate import DEMO, FACE_PARSER
from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing import FaceParser
from ldm.studio import page, widgets
from ldm.studio.faces import face_gallery
from ldm.studio.jobs import Jobs
from ldm.studio.models import Models
from ldm.studio.options import PASSWORD, PHOTOS, SYNTHETIC, USER, chosen_checkpoint
from ldm.studio.server.guard import Guard
from ldm.studio.server.logins import LoginDelay
from ldm.studio.server.network import HostNames, free_port, in_url, without_proxies
from ldm.studio.server.presence import Presence
from ldm.studio.server.upload_folder import MAX_BYTES, UploadFolder


def prepare(
    options: argparse.Namespace, uploads: UploadFolder, presence: Presence, root: Path = ROOT
) -> gr.Blocks:
    """Load model and faces, and build the page.

    Raises:
        ValueError, OSError: an unusable argument.
    """
    models = Models(chosen_checkpoint(root, options.checkpoint), options)
    examples = {"Photos": root / PHOTOS, "Synthetic examples": root / SYNTHETIC}
    if models.path.resolve() == DEMO.resolve():
        examples.pop("Photos")  # trained on synthetic faces only
    found = face_gallery(options.dataset, examples, models.pipe.label_set, models.pipe.size)
    models.fit_previews(found.images)
    parser, label_set = None, models.pipe.label_set
    if options.parser is not None or label_set.regions == CELEBAMASK_HQ.regions:
        parser = FaceParser.from_pretrained(
            options.parser or FACE_PARSER, device=options.device, label_set=label_set
        )
    return page.build(models, found, parser, Jobs(options.max_queue, presence), uploads, root)


def serve(built: gr.Blocks, options: argparse.Namespace, uploads: UploadFolder, presence: Presence) -> str:
    """Start the server and return its address.

    Raises:
        ValueError: the host or the port cannot be used; the message names the option.
    """
    password = os.environ.get(PASSWORD)
    port = free_port(options.host, options.port)
    names = HostNames(options.host, options.root_path, options.share)
    built.queue(default_concurrency_limit=None, max_size=16 * (options.max_queue + 1), api_open=False)

    @contextlib.asynccontextmanager
    async def guarded(app: Any) -> AsyncIterator[None]:
        # At this point the app has built its middleware, so that the guard is outside all of it.
        app.middleware_stack = Guard(app.middleware_stack, names, uploads, presence, LoginDelay())
        yield

    with without_proxies(needed=options.share):
        _, address, _ = built.launch(
            server_name=in_url(options.host),
            server_port=port,
            root_path=options.root_path,
            share=options.share,
            auth=(USER, password) if password else None,
            inbrowser=options.browser,
            max_file_size=MAX_BYTES,
            theme=page.theme(),
            css_paths=[page.CSS],
            js=widgets.script("shortcuts"),
            app_kwargs={"lifespan": guarded},
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            footer_links=["api"],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
        )
    return options.root_path if "://" in options.root_path else address


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Run until Ctrl-C or SIGTERM and exit the process with status 0; return 2 for a usage error."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    uploads, presence = UploadFolder(), Presence()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _exit(uploads))
    uploads.use()
    print("Starting the studio ...", file=sys.stderr, flush=True)
    try:
        built = prepare(options, uploads, presence)
        address = serve(built, options, uploads, presence)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"The studio is running at {address} - press Ctrl-C to stop it", flush=True)
    if options.no_password:
        print(f"without a password: {options.no_password}", flush=True)
    built.block_thread()
    return 0


def _exit(uploads: UploadFolder) -> NoReturn:
    """Delete the uploads, close the tunnels of --share, and end the process at once.

    A regular exit would abort in C++ if a thread, such as that of the first example, is still computing.
    """
    uploads.remove()
    for tunnel in CURRENT_TUNNELS:
        tunnel.kill()
    sys.stdout.flush()
    os._exit(0)
