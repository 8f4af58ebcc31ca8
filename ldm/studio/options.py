"""Command line of the studio, without heavy imports so that --help is fast."""

import argparse
import importlib.util
import os
from pathlib import Path

PASSWORD = "SCA_DM_PASSWORD"  # environment variable, because command lines are visible to other users
USER = "studio"
LOCALHOST = "127.0.0.1"
LAST, FACES = Path("checkpoints/last.ckpt"), Path("checkpoints/faces/diffusion")
PHOTOS, SYNTHETIC = Path("assets/photos/aligned"), Path("assets/faces")  # example faces


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        "gradio_img2img.py",
        description="Edit faces in the browser: style by region, label maps, interpolation.",
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="faces in images/ and labels/, paired by name (default: examples and synthetic faces)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help=f"run folder of main.py, or weight file (default: {LAST} if it exists, else {FACES})",
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="config of a weight file without one")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest available)")
    parser.add_argument(
        "--parser",
        metavar="NAME",
        help="face parser for uploaded photos: run folder, or owner/name on the hub "
        "(default: checkpoints/faces/parser)",
    )
    page = parser.add_argument_group("server")
    page.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    page.add_argument(
        "--root-path",
        metavar="URL",
        help="address of the page behind a reverse proxy, such as https://example.org/studio",
    )
    page.add_argument("--browser", action="store_true", help="open the page in the local browser")
    page.add_argument("--max-queue", "--line", type=int, default=8, help="maximum number of queued jobs (8)")
    page.add_argument(
        "--host", metavar="ADDRESS", help=f"address to listen on (default: {LOCALHOST}, local only)"
    )
    page.add_argument(
        "--share", action="store_true", help="publish the page on the internet through Gradio's tunnel"
    )
    page.add_argument(
        "--no-password",
        metavar="REASON",
        help=f"reason for running without a password; otherwise --host and --share require one in {PASSWORD}",
    )
    return parser


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Complete the options; exit with an error if they are invalid or would publish the page without a password."""
    if (
        os.environ.get("SPACE_ID") and options.host is None
    ):  # in a Hugging Face Space, which decides who may visit
        options.host, options.no_password = "0.0.0.0", options.no_password or "a Hugging Face Space"
    opens = options.share or options.host not in (None, LOCALHOST, "localhost", "::1", "[::1]")
    if opens and not os.environ.get(PASSWORD) and not (options.no_password or "").strip():
        parser.error(
            f"{'--share' if options.share else '--host'} makes the page public: set a password in the environment, "
            f"{PASSWORD}=..., for the user `{USER}`, or run without one: --no-password 'our own network'"
        )
    if options.max_queue < 1:
        parser.error(f"--max-queue must be at least 1, got {options.max_queue}")
    if options.port is None:
        options.port = _port_of_environment(parser)
    if options.port is not None and not 0 < options.port < 2**16:
        parser.error(f"--port must be in [1, 65535], got {options.port}")
    options.host = (options.host or LOCALHOST).strip("[]")
    options.root_path = options.root_path or os.environ.get("GRADIO_ROOT_PATH", "")
    if options.root_path and not options.root_path.startswith(("http://", "https://", "/")):
        parser.error(
            f"--root-path must be an address such as https://example.org/studio, got {options.root_path}"
        )


def _port_of_environment(parser: argparse.ArgumentParser) -> int | None:
    """Return the port in GRADIO_SERVER_PORT, which hosting services set; None if there is none."""
    text = os.environ.get("GRADIO_SERVER_PORT")
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 5:
        parser.error(f"GRADIO_SERVER_PORT must be a port, got {text!r}; unset it, or set --port")
    return int(text)


def close_environment() -> None:
    """Disable telemetry and environment variables that change Gradio's server; call it before importing Gradio."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # they publish files, open further servers, or stop Gradio's import
    if importlib.util.find_spec("socksio") is None:  # httpx, which Gradio imports, raises without it
        for name, value in list(os.environ.items()):
            if name.lower().endswith("_proxy") and value.lower().startswith("socks"):
                del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def chosen_checkpoint(root: Path, given: str | None) -> str:
    """Return the given checkpoint, or else the last one or the weights of real faces under `root`."""
    if given is not None:
        return given
    return str(root / (LAST if (root / LAST).is_file() else FACES))
