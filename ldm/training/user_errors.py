"""User errors of the command line: one sentence instead of a traceback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities.exceptions import MisconfigurationException


class UserError(Exception):
    """An error that the user can fix, such as a wrong config or a missing file."""


@contextmanager
def explained(*kinds: type[Exception]) -> Iterator[None]:
    """Convert errors of these kinds, and Lightning's configuration errors, to UserError."""
    try:
        yield
    except Exception as error:
        if os.environ.get("SCADM_TRACEBACK") or not isinstance(error, (MisconfigurationException, *kinds)):
            raise
        message = str(error) or type(error).__name__
        if isinstance(error, TypeError | KeyError):  # raised wherever a wrong value is used
            message = (
                f"a value in the config is missing or has the wrong type ({type(error).__name__}, {message}); "
                "set SCADM_TRACEBACK=1 for the traceback"
            )
        raise UserError(message) from error


def error_sentence(error: Exception) -> str:
    """Return an error's message on one line, without the traceback of a data-loading worker."""
    return " ".join(str(error).rpartition(f"{type(error).__name__}: ")[2].split())
