"""The oracle: a malformed input leads to a right result, or to one sentence and exit status 2."""

import contextlib
import io
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ldm.atomic_files import PARTIAL

SECONDS = 20
MEMORY = 2 * 10**9  # bytes
LONGEST = 3000  # characters of an error: the keys of weights that do not fit


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Args:
        change: what is wrong with it.
        call: runs the program and returns its exit status; the functions of a library raise ValueError or
            OSError.
        names: the error must contain one of these: the file, the key, or the option.
        right: called after exit status 0; raises AssertionError if the result is wrong.
        warned: exit status 1, some files of several were skipped with a message, is right too.
    """

    change: str
    call: Callable[[], object]
    names: tuple[str, ...]
    right: Callable[[], None] = lambda: None
    warned: bool = False


class TooSlowError(BaseException):
    """A case took longer than SECONDS. Not an Exception, so that no handler of the program catches it."""


def verdict(case: Case, folder: Path) -> str | None:
    """Run a case; return what is wrong with its outcome, None if nothing is.

    Args:
        folder: holds all files of the case; files in it that were partly written, or one called `canary`,
            fell.
    """
    began, memory = time.monotonic(), _peak()
    with _captured() as texts, _limited_time():
        status, sentence, fault = _outcome(case, texts)
    if fault:
        return fault
    if time.monotonic() - began > SECONDS:
        return f"took {time.monotonic() - began:.0f} s"
    if _peak() > max(memory, MEMORY):
        return f"took {_peak() / 1e9:.1f} GB"
    if left := [file.name for file in folder.rglob(f"*{PARTIAL}*")]:
        return f"left {', '.join(left)}"
    if any(folder.rglob("canary*")):
        return "CODE WAS RUN: the canary is there"
    if status == 0:
        return None
    return _wrong_sentence(status, sentence, case)


def _outcome(case: Case, texts: tuple[io.StringIO, io.StringIO]) -> tuple[int, str, str | None]:
    """Return exit status, last line of stderr, and what fell already."""
    try:
        status = case.call()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 2
        if isinstance(leaving.code, str):
            print(leaving.code, file=texts[1])
    except (ValueError, OSError) as error:
        return 2, " ".join(str(error).split()), None  # command lines print it on one line
    except TooSlowError:
        return 2, "", f"took more than {SECONDS} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return 2, "", f"{type(error).__name__}: {error} at {_place(error)}"
    output, errors = (text.getvalue() for text in texts)
    if "Traceback (most recent call last)" in output + errors:
        return 2, "", "printed a traceback: " + errors.strip().splitlines()[-1]
    if not status:
        try:
            case.right()
        except AssertionError as error:
            return 0, "", f"WRONG RESULT without an error: {error}"
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    return int(status or 0), lines[-1] if lines else "", None  # type: ignore[call-overload]


def _wrong_sentence(status: int, sentence: str, case: Case) -> str | None:
    if status != 2 and not (status == 1 and case.warned):
        return f"exit status {status}: {sentence}"
    if len(sentence) > LONGEST:
        return f"an error of {len(sentence)} characters: {sentence[:200]}"
    if not any(name in sentence for name in case.names):
        return f"the error names none of {', '.join(case.names)}: {sentence or '(no message)'}"
    return None


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/ldm/" in frame.filename or "/scripts/" in frame.filename]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno} {last.name}"


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Capture what is printed, and restore what a program sets for its process."""
    output, errors = io.StringIO(), io.StringIO()
    directory, environment = Path.cwd(), dict(os.environ)
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield output, errors
        finally:
            os.chdir(directory)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
