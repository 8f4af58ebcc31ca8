"""The line of visitors: order, limit, Cancel, and those who went away."""

import threading

import pytest
import torch

from ldm.studio import jobs
from ldm.studio.jobs import CancelledError, JobQueue, Jobs, QueueFullError


def made(steps: int):
    """Return a job of some steps that makes one black picture."""

    def make(progress, preview):
        for done in range(1, steps + 1):
            preview(lambda: torch.zeros(1, 3, 4, 4))
            progress(done, steps)
        return [torch.zeros(3, 4, 4)]

    return make


def test_a_job_reports_its_steps_and_ends_with_what_it_made() -> None:
    reports = list(Jobs(limit=1).run("anna", made(5)))
    steps = [report.done for report in reports if report.total]
    assert steps == sorted(steps) and set(steps) == {1, 2, 3, 4, 5}
    assert reports[-1].made is not None and len(reports[-1].made) == 1
    assert any(report.preview is not None for report in reports)
    assert "Step 5 of 5" in reports[-2].summary()


def test_the_second_waits_for_the_first_and_the_line_has_an_end() -> None:
    line = JobQueue(limit=1)
    first, second = line.join("anna"), line.join("bert")
    assert line.poll(first) == 0 and line.poll(second) == 1
    with pytest.raises(QueueFullError, match="1 visitors waiting"):
        line.join("carl")
    line.leave(first)
    assert line.poll(second) == 0


def test_cancel_stops_at_the_next_step_and_the_next_visitor_has_the_model() -> None:
    running, going = Jobs(limit=1), threading.Event()
    steps: list[int] = []

    def endless(progress, preview):
        for done in range(1, 10_000):
            steps.append(done)
            going.set()
            progress(done, 10_000)
            if done == 3:
                running.queue.cancel("anna")
        return []

    last = list(running.run("anna", endless))[-1]
    assert isinstance(last.error, CancelledError) and steps == [1, 2, 3, 4]
    assert list(running.run("bert", made(1)))[-1].made is not None


def test_an_error_is_reported_and_the_next_job_runs() -> None:
    def broken(progress, preview):
        raise RuntimeError("the network fell over")

    running = Jobs(limit=1)
    assert isinstance(list(running.run("anna", broken))[-1].error, RuntimeError)
    assert list(running.run("anna", made(1)))[-1].made is not None


def test_who_closes_the_page_gives_the_place_up() -> None:
    running, stopped = Jobs(limit=1), threading.Event()

    def endless(progress, preview):
        try:
            for done in range(1, 10**9):
                progress(done, 10**9)
        finally:
            stopped.set()
        return []

    reports = running.run("anna", endless)
    next(reports)
    reports.close()
    assert stopped.wait(10)
    assert list(running.run("bert", made(1)))[-1].made is not None


def test_who_does_not_ask_any_more_loses_the_place(monkeypatch) -> None:
    line = JobQueue(limit=3)
    first, second, third = (line.join(name) for name in ("anna", "bert", "carl"))
    assert line.poll(first) == 0
    second.seen -= 2 * jobs.POLL_TIMEOUT
    assert line.poll(third) == 1
    with pytest.raises(CancelledError):
        line.poll(second)
    first.seen -= 2 * jobs.POLL_TIMEOUT
    with pytest.raises(CancelledError):
        first.check()
