"""Error messages of the page: one sentence for the visitor, the traceback in the log."""

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from ldm.out_of_memory import is_out_of_memory
from ldm.studio.jobs import CancelledError
from ldm.studio.text import escaped

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("studio")


def sentence(error: Exception) -> str:
    """Return the message for the visitor; unexpected errors are logged with their traceback."""
    message = " ".join(str(error).split())
    if isinstance(error, CancelledError):
        return "Canceled"
    if is_out_of_memory(error):
        return "Out of memory; close other programs or try again later."
    if isinstance(error, ValueError) and message:  # errors of this project are written for users
        first = message[0] if "." in message.split(maxsplit=1)[0] else message[0].upper()  # not of file names
        return first + message[1:] + ("" if message[-1] in ".!?)" else ".")
    log.error("unexpected error", exc_info=error)
    return f"Unexpected error ({type(error).__name__}); your session is kept, try again. See the terminal for details."


def with_user_errors(handler: Callable[P, R]) -> Callable[P, R]:
    """Make a handler show its errors as one sentence on the page."""

    @functools.wraps(handler)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise _toast(error) from None

    return wrapper


def _toast(error: Exception) -> Any:
    return gr.Error(escaped(sentence(error)), duration=12, print_exception=False, title="Error")
