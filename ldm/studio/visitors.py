"""Visitors: their sessions in memory, bounded in number and in bytes."""

import threading
from collections import OrderedDict

import gradio as gr

from ldm.studio.session import Session

VISITORS = 100  # sessions kept in memory
MAX_BYTES = 512_000_000  # of all images kept for all visitors


class SessionExpiredError(ValueError):
    """The server no longer has the session of a page."""


class Visitors:
    """Sessions by page, the least recently used ones dropped first."""

    def __init__(self, max_sessions: int = VISITORS, limit: int = MAX_BYTES) -> None:
        """Set the largest number of sessions and of bytes of their images."""
        self.max_sessions, self.limit = max_sessions, limit
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, request: gr.Request) -> Session:
        """Create the session of a page that has just been opened."""
        with self._lock:
            session = self._sessions[str(request.session_hash)] = Session()
            self._sessions.move_to_end(str(request.session_hash))
            while len(self._sessions) > self.max_sessions:
                self._sessions.popitem(last=False)
            return session

    def of(self, request: gr.Request) -> Session:
        """Return the session of a page.

        Raises:
            SessionExpiredError: the server was restarted or the session dropped for newer ones; there is a
                new one.
        """
        with self._lock:
            found = self._sessions.get(str(request.session_hash))
            if found is not None:
                self._sessions.move_to_end(str(request.session_hash))
                return found
        self.begin(request)
        raise SessionExpiredError(
            "the server no longer has the session of this page (it was restarted, or had many visitors) and has "
            "started a new one: select your photo or faces again"
        )

    def trim(self) -> None:
        """Drop the oldest images of the least recently used sessions until all fit."""
        with self._lock:
            total = sum(result.nbytes for session in self._sessions.values() for result in session.results)
            for session in self._sessions.values():
                while total > self.limit and len(session.results) > (session.shown in session.results):
                    total -= session.results.pop().nbytes
