"""Find the value of a config that an exception comes from: one sentence with its key instead of a traceback."""

import linecache
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ldm.out_of_memory import is_out_of_memory
from ldm.signatures import ConfigError, format_value

# Raised by Python and torch wherever a wrong value is used; their messages do not name the value.
VALUE_ERRORS = (
    RuntimeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    TypeError,
)
TRACEBACK = "SCADM_TRACEBACK"  # environment variable
NAME = re.compile(r"[A-Za-z_]\w*")


@contextmanager
def explained_build(target: str, params: Mapping[str, Any]) -> Iterator[None]:
    """Convert VALUE_ERRORS of a constructor to a ConfigError that names its target and the likely parameters.

    SCADM_TRACEBACK=1 leaves them unchanged.
    """
    try:
        yield
    except VALUE_ERRORS as error:
        if wants_traceback():
            raise
        used = next((keys for keys in map(_names, _innermost_first(error)) if keys & params.keys()), set())
        values = _values(used, params)
        raise ConfigError(
            f"{target} cannot be built with {values or 'these params'} ({reason(error)})"
        ) from error


def wants_traceback() -> bool:
    """Return whether errors should keep their traceback: the environment variable SCADM_TRACEBACK is set."""
    return os.environ.get(TRACEBACK, "") not in ("", "0")


def reason(error: BaseException) -> str:
    """Return the type and the message of an exception on one line."""
    if is_out_of_memory(error):
        return "out of memory"
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message:.300}" if message else type(error).__name__


def blamed(error: BaseException, sections: Mapping[int, tuple[str, Mapping[str, Any]]]) -> str:
    """Return the section of a config, and if possible the values, that an exception comes from.

    Args:
        error: the exception, with its traceback.
        sections: path and values of a section by the id of the object that was built from it.
    """
    place = ""
    for trace in _innermost_first(error):
        section = sections.get(id(trace.tb_frame.f_locals.get("self")))
        if section is None:
            continue
        path, params = section
        place = place or path
        if values := _values(_names(trace), params):
            return f"{path} ({values})"
    return place or "the config"


def _values(names: set[str], params: Mapping[str, Any]) -> str:
    """Return `key: value` of up to three parameters with these names."""
    return ", ".join([f"{key}: {format_value(value)}" for key, value in params.items() if key in names][:3])


def _innermost_first(error: BaseException) -> list[TracebackType]:
    traces, trace = [], error.__traceback__
    while trace is not None:
        traces.append(trace)
        trace = trace.tb_next
    return traces[::-1]


def _names(trace: TracebackType) -> set[str]:
    """Return the names in the source of the expression that failed."""
    code = trace.tb_frame.f_code
    first, last, *_ = list(code.co_positions())[trace.tb_lasti // 2]
    lines = range(first or trace.tb_lineno, (last or trace.tb_lineno) + 1)
    return set(NAME.findall("".join(linecache.getline(code.co_filename, line) for line in lines)))
