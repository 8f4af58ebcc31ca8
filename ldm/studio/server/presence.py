"""Presence: which visitors read the event stream of their results."""

import threading
import time
from collections import OrderedDict

MAX_CLOSED = 10_000  # streams that have ended


class Presence:
    """Open event streams by session or event id. Thread-safe: streams open in the server, jobs ask in threads."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._closed: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, key: str) -> None:
        """Note that a stream was opened."""
        with self._lock:
            self._open[key] = self._open.get(key, 0) + 1

    def close(self, key: str) -> None:
        """Note that a stream has ended."""
        with self._lock:
            left = self._open.pop(key, 1) - 1
            if left:
                self._open[key] = left
                return
            self._closed[key] = time.monotonic()
            self._closed.move_to_end(key)
            while len(self._closed) > MAX_CLOSED:
                self._closed.popitem(last=False)

    def absent(self, keys: tuple[str, ...], since: float) -> float:
        """Return for how many seconds no stream of these keys was open, at most those since `since`."""
        with self._lock:
            if any(key in self._open for key in keys):
                return 0.0
            return time.monotonic() - max([since, *(self._closed.get(key, since) for key in keys)])
