"""Errors of weight files."""


class CheckpointError(ValueError):
    """A weight file cannot be used; the message says what was found and what to do."""


class UnsafePickle(CheckpointError):  # noqa: N818 (the name says what the file is)
    """A weight file would run code while being read; nothing of it was run."""
