"""The studio's command line. Imports nothing heavy, so that --help answers at once."""

import argparse
import os
from pathlib import Path

PASSWORD = "SCA_DM_PASSWORD"  # the environment variable; a command line is seen by everyone on the machine
USER = "studio"
HOME = "127.0.0.1"
LAST, DEMO = Path("checkpoints/last.ckpt"), Path("checkpoints/demo")
EXAMPLES = Path("assets/faces")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(
        "gradio_img2img.py", description="Edit faces in the browser: styles by region, masks, in-betweens."
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="faces: images/ and labels/, paired by name (generated)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help=f"a run folder of main.py, or a weight file ({LAST} where there is one, else {DEMO})",
    )
    parser.add_argument(
        "--config", type=Path, metavar="YAML", help="for weight files that come without a config"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    parser.add_argument(
        "--parser",
        metavar="NAME",
        help="face parser for own photos: a run folder, or owner/name on the hub (checkpoints/faces/parser)",
    )
    page = parser.add_argument_group("the page")
    page.add_argument("--port", type=int, help="where it listens (the first free one from 7860)")
    page.add_argument("--browser", action="store_true", help="open the page in this machine's browser")
    page.add_argument("--line", type=int, default=8, help="visitors who may wait at once (8)")
    page.add_argument(
        "--host", metavar="ADDRESS", help=f"let other machines in: an address to listen on ({HOME}, this one)"
    )
    page.add_argument("--share", action="store_true", help="let the internet in, through Gradio's tunnel")
    page.add_argument(
        "--no-password",
        metavar="REASON",
        help=f"why no password is wanted; otherwise --host and --share want one, in {PASSWORD}",
    )
    return parser


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with one sentence if options contradict each other, or would let strangers in."""
    opens = options.share or options.host not in (None, HOME, "localhost", "::1")
    if opens and not os.environ.get(PASSWORD) and not (options.no_password or "").strip():
        parser.error(
            f"{'--share' if options.share else '--host'} lets others in: set a password in the environment, "
            f"{PASSWORD}=..., for the user `{USER}`; or say why none is wanted: --no-password 'our own network'"
        )
    if options.line < 1:
        parser.error(f"--line is {options.line}; wanted 1 or more")
    if options.port is not None and not 0 < options.port < 2**16:
        parser.error(f"--port is {options.port}; wanted 1 .. 65535")


def close_environment() -> None:
    """Let no environment variable open the page, or report it; to be called before Gradio is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for opened in ("ALLOWED_PATHS", "SERVER_NAME", "SHARE", "MCP_SERVER", "RUN_HISTORY", "NUM_WORKERS"):
        os.environ.pop(f"GRADIO_{opened}", None)
    # Before torch is imported, for main.py's reason.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def chosen_checkpoint(root: Path, given: str | None) -> str:
    """Return the checkpoint that is asked for, else the last one, else the demo weights, below `root`."""
    if given is not None:
        return given
    return str(root / (LAST if (root / LAST).is_file() else DEMO))
