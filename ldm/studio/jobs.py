"""Job queue of the studio: one model, one job at a time, with progress and cancellation.

Gradio's own queue cannot replace it: it lets one session fill it, does not report queue positions to
generators, cancels only at a yield, and detects a closed page only after 15 s.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import gradio as gr
from gradio.context import LocalContext
from torch import Tensor

from ldm.pipeline.options import Preview, Progress
from ldm.studio.server.presence import Presence

POLL_TIMEOUT = 20.0  # seconds without polling after which a visitor counts as disconnected
READ_TIMEOUT = 0.8  # seconds without a reader after which a job is canceled in favor of a waiting one
READ_TIMEOUT_IDLE = 5.0  # the same if no job is waiting
POLL = 0.2  # polling interval of the queue in seconds
PREVIEW_EVERY = 0.3  # seconds between previews; decoding slows sampling down


class CancelledError(Exception):
    """The visitor canceled or left."""


class QueueFullError(ValueError):
    """The queue is full, or the visitor already has a job in it."""


def never_absent(since: float) -> float:
    """Report a visitor as always connected, as in tests."""
    return 0.0


@dataclass(eq=False)
class Job:
    """A queued or running job.

    Attributes:
        visitor: session of the visitor.
        absent: function of a time that returns the seconds since then during which no client read the
            results.
        jobs_behind: number of jobs behind it in the queue.
        canceled: set to stop the job.
        seen: time at which the job was polled last.
        began: time at which the job was created.
    """

    visitor: str
    absent: Callable[[float], float] = never_absent
    jobs_behind: int = 0
    canceled: threading.Event = field(default_factory=threading.Event)
    seen: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raise CancelledError if the job was canceled or its visitor has left."""
        absent = self.absent(self.began) > (READ_TIMEOUT if self.jobs_behind else READ_TIMEOUT_IDLE)
        if absent or self.canceled.is_set() or time.monotonic() - self.seen > POLL_TIMEOUT:
            raise CancelledError


class JobQueue:
    """First-in, first-out queue; the first job uses the model."""

    def __init__(self, limit: int) -> None:
        """Set the maximum number of waiting jobs."""
        self.limit = limit
        self._jobs: list[Job] = []
        self._running: Job | None = None
        self._lock = threading.Lock()

    def join(self, visitor: str, absent: Callable[[float], float] = never_absent) -> Job:
        """Append a job; raise QueueFullError if the queue is full or the visitor is already in it."""
        with self._lock:
            self._drop_disconnected()
            if any(job.visitor == visitor and not job.canceled.is_set() for job in self._jobs):
                raise QueueFullError("your last request is still in progress; wait for it or cancel it first")
            if len(self._jobs) > self.limit:
                raise QueueFullError(
                    f"the queue is full ({self.limit} visitors waiting); try again in a minute"
                )
            self._jobs.append(Job(visitor, absent))
            self._count()
            return self._jobs[-1]

    def poll(self, job: Job) -> int:
        """Return the number of jobs ahead and refresh the visitor's presence; 0 starts the job.

        Raises:
            CancelledError: the job was dropped because its visitor was away too long.
        """
        with self._lock:
            if job not in self._jobs:
                raise CancelledError
            job.seen = time.monotonic()
            self._drop_disconnected()
            place = self._jobs.index(job)
            if place == 0:
                self._running = job
            return place

    def leave(self, job: Job) -> None:
        """Remove a job."""
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
            if self._running is job:
                self._running = None
            self._count()

    def cancel(self, visitor: str) -> bool:
        """Cancel the jobs of a visitor; return whether there were any."""
        with self._lock:
            found = [job for job in self._jobs if job.visitor == visitor]
        for job in found:
            job.canceled.set()
        return bool(found)

    def _drop_disconnected(self) -> None:
        now = time.monotonic()
        self._jobs = [job for job in self._jobs if job is self._running or now - job.seen <= POLL_TIMEOUT]
        self._count()

    def _count(self) -> None:
        for ahead, job in enumerate(self._jobs):
            job.jobs_behind = len(self._jobs) - 1 - ahead


@dataclass(frozen=True)
class Report:
    """Progress of a job.

    Attributes:
        jobs_ahead: number of jobs ahead in the queue; 0 while it runs.
        done, total: sampling steps.
        seconds_left: estimate; None until the first step is done.
        preview: new preview of the image (3, H, W), if any.
        made: finished images, in order; only in the last report.
        error: the error that ended the job; only in the last report.
    """

    jobs_ahead: int = 0
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    preview: Tensor | None = None
    made: list[Tensor] | None = None
    error: Exception | None = None

    def summary(self) -> str:
        """Format the progress for the page."""
        if self.jobs_ahead:
            return f"Queued, position {self.jobs_ahead}"
        if not self.total:
            return "Starting"
        left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left"
        return f"Step {self.done} of {self.total}{left}"


Make = Callable[[Progress, Preview], list[Tensor]]


class Jobs:
    """Runs one job at a time, in a separate thread."""

    def __init__(self, limit: int, presence: Presence | None = None) -> None:
        """Set the maximum number of waiting jobs.

        Args:
            limit: the maximum.
            presence: tracks which visitors read the results of their jobs; None to never cancel for absence.
        """
        self.queue = JobQueue(limit)
        self._presence = presence

    def run_for(self, request: gr.Request, make: Make) -> Iterator[Report]:
        """Queue the job of a request and run it, as `run` does; stop if nobody reads its results."""
        visitor = str(request.session_hash)
        if self._presence is None:
            return self.run(visitor, make)
        keys = visitor, str(LocalContext.event_id.get(None))  # API clients read by event, pages by session
        return self.run(visitor, make, partial(self._presence.absent, keys))

    def run(
        self, visitor: str, make: Make, absent: Callable[[float], float] = never_absent
    ) -> Iterator[Report]:
        """Queue a job and run it; yield progress reports, the last one with the images.

        Args:
            visitor: has at most one job in the queue.
            make: the job; it calls its arguments at each step.
            absent: function of a time that returns the seconds since then during which no client read the
                reports.

        Raises:
            QueueFullError: the queue is full.
        """
        job = self.queue.join(visitor, absent)
        worker: _Worker | None = None
        try:
            while jobs_ahead := self.queue.poll(job):
                job.check()
                yield Report(jobs_ahead=jobs_ahead)
                time.sleep(POLL)
            job.check()
            worker = _Worker(self.queue, job, make)
            worker.start()
            yield from worker.reports()
        except CancelledError as error:
            yield Report(error=error)
        finally:  # also if the page was closed
            job.canceled.set()
            if worker is None:
                self.queue.leave(job)


class _Worker(threading.Thread):
    """Runs one job, then removes it from the queue."""

    def __init__(self, queue_: JobQueue, job: Job, make: Make) -> None:
        super().__init__(daemon=True)
        self._queue, self._job, self._make = queue_, job, make
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._done = self._total = 0
        self._start_time = time.monotonic()
        self._last_preview = 0.0

    def run(self) -> None:
        """Run the job and queue its last report."""
        try:
            report = Report(made=self._make(self._progress, self._preview))
        except Exception as error:  # reported on the page
            report = Report(error=error)
        finally:
            self._queue.leave(self._job)
        self._reports.put(report)

    def reports(self) -> Iterator[Report]:
        """Yield reports as they arrive, until the last one."""
        yield Report()
        while True:
            self._job.seen = time.monotonic()
            try:
                report = self._reports.get(timeout=POLL)
            except queue.Empty:
                continue
            yield report
            if report.made is not None or report.error is not None:
                return

    def _progress(self, done: int, total: int) -> None:
        self._job.check()
        self._done, self._total = done, total
        self._reports.put(self._now())

    def _preview(self, decode: Callable[[], Tensor]) -> None:
        self._job.check()
        if self._done and time.monotonic() - self._last_preview >= PREVIEW_EVERY:
            self._reports.put(self._now(decode()[0].cpu()))
            self._last_preview = time.monotonic()

    def _now(self, preview: Tensor | None = None) -> Report:
        spent = time.monotonic() - self._start_time
        left = spent / self._done * (self._total - self._done) if self._done else None
        return Report(done=self._done, total=self._total, seconds_left=left, preview=preview)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
