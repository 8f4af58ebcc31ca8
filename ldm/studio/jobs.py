"""One model, one line of visitors: who is next, how far the picture is, and how to stop it."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from ldm.pipeline.options import Preview, Progress

PATIENCE = 20.0  # seconds after which a visitor who does not ask any more has left
POLL = 0.2  # seconds between two looks at the line
PREVIEW_EVERY = 0.3  # seconds; decoding a preview takes time from the sampling


class CancelledError(Exception):
    """The visitor pressed Cancel, or left."""


class LineFullError(ValueError):
    """Too many visitors wait already."""


@dataclass(eq=False)
class Ticket:
    """A place in the line."""

    visitor: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    seen: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raise CancelledError where nobody waits for this any more."""
        if self.cancelled.is_set() or time.monotonic() - self.seen > PATIENCE:
            raise CancelledError


class Line:
    """Visitors in the order they came; the first one has the model."""

    def __init__(self, limit: int) -> None:
        """Take how many may wait behind the first."""
        self.limit = limit
        self._tickets: list[Ticket] = []
        self._running: Ticket | None = None
        self._lock = threading.Lock()

    def join(self, visitor: str) -> Ticket:
        """Return a new place at the end; LineFullError where there is none."""
        with self._lock:
            self._drop_the_gone()
            if len(self._tickets) > self.limit:
                raise LineFullError(f"{self.limit} visitors wait already; try again in a minute")
            self._tickets.append(Ticket(visitor))
            return self._tickets[-1]

    def place(self, ticket: Ticket) -> int:
        """Return how many are in front, and note that the visitor is still there. At 0 the model is theirs.

        Raises:
            CancelledError: the visitor was away for so long that the place is gone.
        """
        with self._lock:
            if ticket not in self._tickets:
                raise CancelledError
            ticket.seen = time.monotonic()
            self._drop_the_gone()
            place = self._tickets.index(ticket)
            if place == 0:
                self._running = ticket
            return place

    def leave(self, ticket: Ticket) -> None:
        """Give the place up."""
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            if self._running is ticket:
                self._running = None

    def cancel(self, visitor: str) -> bool:
        """Stop what a visitor waits for; tell whether there was anything."""
        with self._lock:
            found = [ticket for ticket in self._tickets if ticket.visitor == visitor]
        for ticket in found:
            ticket.cancelled.set()
        return bool(found)

    def _drop_the_gone(self) -> None:
        now = time.monotonic()
        self._tickets = [
            ticket for ticket in self._tickets if ticket is self._running or now - ticket.seen <= PATIENCE
        ]


@dataclass(frozen=True)
class Report:
    """How far a job is.

    Attributes:
        waiting: visitors in front; 0 while it runs.
        done, total: steps.
        seconds_left: None until the first step is done.
        preview: what the picture (3, H, W) looks like so far, if that is new.
        made: pictures that are ready, in order; only in the last report.
        error: what went wrong; only in the last report.
    """

    waiting: int = 0
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    preview: Tensor | None = None
    made: list[Tensor] | None = None
    error: Exception | None = None

    def in_words(self) -> str:
        """Say it on the page."""
        if self.waiting:
            return f"You are number {self.waiting} in line"
        if not self.total:
            return "Reading the faces"
        left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left"
        return f"Step {self.done} of {self.total}{left}"


Make = Callable[[Progress, Preview], list[Tensor]]


class Jobs:
    """Runs one job at a time, in a thread of its own."""

    def __init__(self, limit: int) -> None:
        """Take how many visitors may wait."""
        self.line = Line(limit)

    def run(self, visitor: str, make: Make) -> Iterator[Report]:
        """Wait for the visitor's turn, then make pictures; yields how far it is, and at the end what was made.

        Raises:
            LineFullError: too many wait already.
        """
        ticket = self.line.join(visitor)
        worker: _Worker | None = None
        try:
            while waiting := self.line.place(ticket):
                ticket.check()
                yield Report(waiting=waiting)
                time.sleep(POLL)
            ticket.check()
            worker = _Worker(self.line, ticket, make)
            worker.start()
            yield from worker.reports()
        except CancelledError as error:
            yield Report(error=error)
        finally:  # also where the page went away in the middle
            ticket.cancelled.set()
            if worker is None:
                self.line.leave(ticket)


class _Worker(threading.Thread):
    """Makes the pictures of one ticket, then gives its place up."""

    def __init__(self, line: Line, ticket: Ticket, make: Make) -> None:
        super().__init__(daemon=True)
        self._line, self._ticket, self._make = line, ticket, make
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._done = self._total = 0
        self._began = time.monotonic()
        self._shown = 0.0

    def run(self) -> None:
        """Make, and report."""
        try:
            report = Report(made=self._make(self._progress, self._preview))
        except Exception as error:  # of any kind: it is the page that tells
            report = Report(error=error)
        finally:
            self._line.leave(self._ticket)
        self._reports.put(report)

    def reports(self) -> Iterator[Report]:
        """Yield reports as they come, until the last."""
        yield Report()
        while True:
            self._ticket.seen = time.monotonic()
            try:
                report = self._reports.get(timeout=POLL)
            except queue.Empty:
                continue
            yield report
            if report.made is not None or report.error is not None:
                return

    def _progress(self, done: int, total: int) -> None:
        self._ticket.check()
        self._done, self._total = done, total
        self._reports.put(self._now())

    def _preview(self, decode: Callable[[], Tensor]) -> None:
        self._ticket.check()
        if self._done and time.monotonic() - self._shown >= PREVIEW_EVERY:
            self._reports.put(self._now(decode()[0].cpu()))
            self._shown = time.monotonic()

    def _now(self, preview: Tensor | None = None) -> Report:
        spent = time.monotonic() - self._began
        left = spent / self._done * (self._total - self._done) if self._done else None
        return Report(done=self._done, total=self._total, seconds_left=left, preview=preview)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
