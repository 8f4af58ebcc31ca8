"""One plain sentence for whatever goes wrong; the terminal has the rest, and the page goes on."""

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from ldm.studio.jobs import CancelledError

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("studio")
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def sentence(error: Exception) -> str:
    """Return what a visitor reads; errors that nobody foresaw go to the log in full."""
    said = " ".join(str(error).split())
    if isinstance(error, CancelledError):
        return "Stopped"
    if isinstance(error, MemoryError) or any(words in said.lower() for words in NO_MEMORY):
        return "There is too little memory for this picture now; close other programs, or try again later."
    if isinstance(error, ValueError) and said:  # ours: each says what was wrong and what to do
        return said[0].upper() + said[1:] + ("" if said[-1] in ".!?)" else ".")
    log.error("an error that the page does not know", exc_info=error)
    return f"Something went wrong here ({type(error).__name__}); nothing is lost, try again. The terminal says more."


def plainly(handler: Callable[P, R]) -> Callable[P, R]:
    """Let a handler show its errors as one sentence."""

    @functools.wraps(handler)
    def shown(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise _toast(error) from None

    return shown


def _toast(error: Exception) -> Any:
    return gr.Error(sentence(error), duration=12, print_exception=False, title="That did not work")
