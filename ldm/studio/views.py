"""Views of the page: component values for progress, results and errors."""

import time
from typing import Any

import gradio as gr
from PIL import Image
from torch import Tensor

from ldm.data.animation import encode_animation
from ldm.data.images import to_uint8
from ldm.pipeline import Recipe
from ldm.studio.errors import sentence
from ldm.studio.jobs import CancelledError, Report
from ldm.studio.session import Result, Session
from ldm.studio.text import escaped
from ldm.studio.widgets import data_url, picture_url

View = tuple[Any, ...]  # status, compare, history, animation, seed


def listed(session: Session) -> str:
    """Format the list of edits as Markdown."""
    if not session.parts:
        return "No entries: only the current selection is edited."
    return "\n".join(f"- {escaped(part.summary())}" for part in session.parts)


def compare_value(result: Result | None, is_new: bool = False) -> dict[str, Any]:
    """Return the value of the comparison of a result with its source image; empty without a result."""
    if result is None:
        return {}
    face = "".join(c for c in str(result.recipe.description.get("face", "face")) if c.isalnum() or c in "-_")
    return {
        "before": None if result.before is None else picture_url(result.before),
        "after": data_url(result.png),
        "title": result.title,
        "note": f"The PNG contains its recipe{'' if result.recipe.photo is None else ', including the source image'}.",
        "file": f"{face or 'face'}_seed{result.recipe.options.get('seed', 0)}.png",
        "is_new": is_new,
    }


def animation_value(frames: list[Tensor], recipe: Recipe) -> dict[str, Any]:
    """Return the value of an interpolation; the animations play forwards and backwards."""
    forth_and_back = [*frames, *frames[-2:0:-1]]
    return {
        "frames": [picture_url(frame) for frame in frames],
        "name": f"interpolation_seed{recipe.options.get('seed', 0)}",
        "gif": data_url(encode_animation("gif", forth_and_back), "image/gif"),
        "webp": data_url(encode_animation("webp", forth_and_back), "image/webp"),
    }


def history(session: Session) -> Any:
    """Return the history gallery."""
    pictures = [(Image.fromarray(to_uint8(result.image)), result.title) for result in session.results]
    return gr.update(value=pictures, selected_index=None)


def busy(report: Report, before: Tensor | None, seed: int | None) -> View:
    """Return the view of a running job: status, preview and seed."""
    status = {"text": report.summary(), "state": "busy", "done": report.done, "total": report.total}
    live: Any = gr.skip()
    if report.preview is not None:
        live = {"after": picture_url(report.preview), "live": True, "title": ""}
        if before is not None:
            live["before"] = picture_url(before)
    return status, live, gr.skip(), gr.skip(), gr.skip() if seed is None else seed


def failed(
    error: Exception, last: Report | None = None, session: Session | None = None, kept: int = 0
) -> View:
    """Return the view of a failed job; the last result replaces an unfinished preview.

    Args:
        error: the error that ended the job.
        last: last progress report.
        session: session whose last result and history are displayed.
        kept: number of images finished before the error.
    """
    # The time makes a repeated message a new value.
    status: dict[str, Any] = {"text": sentence(error), "state": "error", "at": time.time()}
    if isinstance(error, CancelledError):
        where = f" after step {last.done} of {last.total}" if last is not None and last.total else ""
        status = {"text": f"Canceled{where}", "state": "canceled"}
    if session is None:
        return status, gr.skip(), gr.skip(), gr.skip(), gr.skip()
    if kept:
        status["text"] += f"; {kept} finished {'image is' if kept == 1 else 'images are'} kept"
    pictures = history(session) if kept else gr.skip()
    return status, compare_value(session.shown, is_new=bool(kept)), pictures, gr.skip(), gr.skip()
