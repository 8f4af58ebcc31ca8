"""Errors for the person at the command line: one sentence instead of a traceback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities.exceptions import MisconfigurationException


class UserError(Exception):
    """Wrong config, missing files: what the person at the command line can mend."""


@contextmanager
def explained(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds, and those that Lightning has for wrong settings, into the user's."""
    try:
        yield
    except Exception as error:
        if os.environ.get("SCADM_TRACEBACK") or not isinstance(error, (MisconfigurationException, *kinds)):
            raise
        message = str(error) or type(error).__name__
        if isinstance(error, TypeError | KeyError):  # raised by whatever a wrong value has got to
            message = (
                f"a value in the config is of the wrong kind, or missing ({type(error).__name__}, {message}); "
                "SCADM_TRACEBACK=1 shows where"
            )
        raise UserError(message) from error


def error_sentence(error: Exception) -> str:
    """Return an error's message on one line, without the traceback that a reading process sends along."""
    return " ".join(str(error).rpartition(f"{type(error).__name__}: ")[2].split())
