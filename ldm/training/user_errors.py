"""Errors of the command line: one sentence instead of a traceback."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ldm.config_errors import TRACEBACK, VALUE_ERRORS, blamed, reason, wants_traceback
from ldm.data.datamodule import DataError
from ldm.out_of_memory import is_out_of_memory, out_of_memory
from ldm.training.finite import NotFiniteError

Sections = Mapping[int, tuple[str, Mapping[str, Any]]]
SENTENCES = (ValueError, OSError, ImportError, MisconfigurationException)  # messages for users
LESS_MEMORY = "lower data.params.batch_size, or make the model smaller"


class UserError(Exception):
    """An error that the user can fix, such as a wrong config or a missing file."""


@contextmanager
def explained(sections: Sections | None = None) -> Iterator[None]:
    """Convert errors that a wrong value or file can cause to UserError; SCADM_TRACEBACK=1 leaves them unchanged.

    Args:
        sections: path and values of a section of the config by the id of the object that was built from it.
    """
    try:
        yield
    except (DataError, NotFiniteError):
        raise
    except (*SENTENCES, *VALUE_ERRORS) as error:
        if wants_traceback():
            raise
        if isinstance(error, SENTENCES) and str(error):
            raise UserError(str(error)) from error
        place = blamed(error, sections or {})
        if is_out_of_memory(error):
            raise UserError(out_of_memory(f"in {place}", LESS_MEMORY)) from error
        raise UserError(
            f"a value in {place} cannot be used ({reason(error)}); set {TRACEBACK}=1 for the traceback"
        ) from error


def error_sentence(error: Exception) -> str:
    """Return an error's message on one line, without the traceback of a data-loading worker."""
    return " ".join(str(error).rpartition(f"{type(error).__name__}: ")[2].split())
