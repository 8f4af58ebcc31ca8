"""Fixtures of painted photos."""

from tests.pipeline.test_photo_editor import editor, file

__all__ = ["editor", "file"]
