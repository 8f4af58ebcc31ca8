"""From any photo to an aligned crop with a label map."""

from ldm.parsing.face_parser import FaceParser

__all__ = ["FaceParser"]
