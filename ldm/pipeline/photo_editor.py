"""PhotoEditor: open any photo, edit regions of a face in it and save it at full resolution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ldm.checkpoints.locate import FACE_PARSER, FACES
from ldm.data.photo_file import PhotoFile
from ldm.parsing import FaceParser
from ldm.parsing.photo_faces import find_faces
from ldm.pipeline.face_pipeline import FacePipeline
from ldm.pipeline.photo import Photo, PhotoError
from ldm.pipeline.pretrained import Precision, Weights

SMALLEST_FACE = 64  # side in pixels of the smallest crop that can be edited: a face box of about 30


class PhotoEditor:
    """Edits photos with a face model and a face parser."""

    def __init__(self, pipe: FacePipeline, parser: FaceParser) -> None:
        """Take a model and a parser with the same regions.

        Raises:
            PhotoError: model and parser have different regions.
        """
        if pipe.label_set.regions != parser.label_set.regions:
            raise PhotoError(
                f"model and parser must have the same regions, got {pipe.label_set.name} and {parser.label_set.name}"
            )
        self.pipe, self.parser = pipe, parser

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path = FACES,
        parser: str | Path = FACE_PARSER,
        *,
        config: str | Path | Mapping[str, Any] | None = None,
        weights: Weights | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
    ) -> PhotoEditor:
        """Load both networks.

        Args:
            checkpoint: argument of `FacePipeline.from_pretrained`; by default `checkpoints/faces/diffusion`.
            parser: argument of `FaceParser.from_pretrained`; by default the parser of the repository.
            config: YAML of the face model, as in `FacePipeline.from_pretrained`.
            weights: "ema" or "raw" weights of the face model, as in `FacePipeline.from_pretrained`.
            device: "cpu", "cuda" or "mps"; by default the fastest available.
            precision: of the face model; "auto" uses bfloat16 where it is faster.

        Raises:
            CheckpointError: a checkpoint cannot be loaded. PhotoError: model and parser have different
                regions.
        """
        pipe = FacePipeline.from_pretrained(
            checkpoint, config=config, weights=weights, device=device, precision=precision
        )
        return cls(pipe, FaceParser.from_pretrained(parser, device=device))

    def open(self, path: str | Path) -> Photo:
        """Read a photo and detect its faces.

        Raises:
            ImageError: the file cannot be read as a photo. PhotoError: no face was found.
        """
        file = PhotoFile.open(path)
        faces = [
            face
            for face in find_faces(Image.fromarray(file.pixels), self.parser)
            if face.side >= SMALLEST_FACE
        ]
        if not faces:
            raise PhotoError(
                f"{path}: no face was found; both eyes and the mouth must be visible, "
                f"and head and hair together at least {SMALLEST_FACE} pixels wide"
            )
        return Photo(self.pipe, self.parser, file, tuple(faces))
