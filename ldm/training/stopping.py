"""Ctrl-C, SIGTERM and SIGHUP (a closed ssh session): finish the batch, write a checkpoint, exit."""

import os
import signal
from contextlib import suppress
from types import FrameType, TracebackType

from ldm.data.datamodule import PARENTS_TIME

# An Interrupted raised anywhere exits with 128 + its signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Interrupted(BaseException):
    """The run received a stop signal. Not an Exception, so that no `except Exception` catches it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class StopRequest:
    """Remember a signal until the training loop can stop, as a context manager.

    While `deferring`, the first signal only sets `signum`; a second one, or any while not deferring, raises
    Interrupted.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.deferring = False
        self._process = os.getpid()
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        self._before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def listen(self) -> None:
        """Install the handlers; again once Lightning has set its own."""
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked process that has not set handlers of its own yet
            signal.alarm(PARENTS_TIME)  # its parent still needs it to finish the batch
            return
        if not self.deferring or self.signum is not None:
            raise Interrupted(signum)
        self.signum = signum
        name = signal.Signals(signum).name
        # print is not safe in a handler that may have interrupted another print
        message = (
            f"\n{name}: saving a checkpoint after this batch, then exiting; press Ctrl-C again to exit now\n"
        )
        try:
            os.write(2, message.encode())
        except OSError:  # the terminal is gone: what is printed from now on must not end the run
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 1)
                os.dup2(nowhere, 2)
