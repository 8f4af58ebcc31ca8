"""The task `photo`: one edit on every photo."""

import argparse
import sys
from pathlib import Path

import numpy as np

from ldm.arguments import listed_names
from ldm.checkpoints.fingerprint import fingerprint
from ldm.checkpoints.locate import FACE_PARSER, FACES
from ldm.cli.photo_files import (
    REQUEST,
    is_finished,
    is_folder,
    named_photos,
    output_files,
    request_digest,
)
from ldm.data.images import open_image
from ldm.data.label_maps import read_labels, save_labels
from ldm.data.photo_file import MAX_PIXELS
from ldm.output_files import check_outputs
from ldm.pipeline.memory import format_error
from ldm.pipeline.options import SamplingOptions, validate_options
from ldm.pipeline.photo import Photo
from ldm.pipeline.photo_editor import PhotoEditor
from ldm.pipeline.region_color import parse_colors
from ldm.pipeline.style_code import StyleCode

RANDOM = "random"  # value of --style


def run_photo(options: argparse.Namespace) -> int:
    """Edit all photos; return 0, or 1 if some could not be edited.

    Raises:
        ValueError: a mistake in the command, or none of the photos could be edited.
    """
    photos = named_photos(options.photo)
    job = PhotoJob(options, photos)
    for i in range(len(photos)):
        job.edit(i)
    if job.problems and not job.done:
        raise ValueError("; ".join(job.problems))
    for problem in job.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if len(photos) > 1:
        print(f"{job.done} of {len(photos)} photos are in {options.out}")
    return 1 if job.problems else 0


class PhotoJob:
    """One edit on several photos.

    Attributes:
        done: number of finished photos, those of an earlier run included.
        problems: one message for each photo that could not be edited.
    """

    def __init__(self, options: argparse.Namespace, photos: list[Path]) -> None:
        """Check the command, then load the networks and the style.

        Raises:
            ValueError: an invalid option, an output that cannot be written, or an unreadable style.
        """
        self.options, self.photos = options, photos
        self.done, self.problems = 0, list[str]()
        folder = is_folder(options.out, options.photo)
        self.outputs = output_files(photos, options.out, folder=folder)
        self.masks_out = self._masks(options.mask_out, folder=folder)
        self.masks_in = self._masks(options.mask_in, folder=folder)
        self._check_files()
        self.colors = None if options.color is None else parse_colors(options.color)
        given = {name: getattr(options, name) for name in ("seed", "steps")}
        self.how: SamplingOptions = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]
        self.sampling = validate_options(**self.how)
        print("loading the models ...", file=sys.stderr, flush=True)
        self.editor = PhotoEditor.from_pretrained(
            options.checkpoint or FACES,
            options.parser or FACE_PARSER,
            config=options.config,
            weights=options.weights,
            device=options.device,
            precision=options.precision,
        )
        self.regions = None if options.regions is None else listed_names(options.regions)
        self.editor.pipe.label_set.indices(self.colors or self.regions or ())
        self.style = self._style()
        self.command = self._command()

    def edit(self, index: int) -> None:
        """Edit one photo, unless it is finished; a photo that cannot be edited becomes a problem."""
        path, out = self.photos[index], self.outputs[index]
        mask_in, mask_out = self.masks_in[index], self.masks_out[index]
        request = request_digest(self.command, path, mask_in)
        if is_finished(out, request) and (mask_out is None or mask_out.is_file()):
            print(f"{out}: finished already")
            self.done += 1
            return
        print(f"editing {path} ...", file=sys.stderr, flush=True)
        try:
            photo = self.editor.open(path)
            if mask_in is not None:
                photo = photo.with_labels(self._read_mask(mask_in))
            face = self.options.face
            result = photo.edit(
                face,
                style=photo.null_style(face) if self.options.style == RANDOM else self.style,
                color=self.colors,
                regions=self.regions,
                strength=self.options.strength,
                detail=self.options.detail,
                **self.how,
            )
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            self.problems.append(format_error(error, None))
            return
        # Errors of writing end the command: they would recur.
        if mask_out is not None:
            save_labels(mask_out, photo.labels_in_photo(face), self.editor.pipe.label_set)
        result.with_metadata(**{REQUEST: request}).save(out, gps=self.options.gps)
        self.done += 1
        self._report(photo, out)

    def _read_mask(self, path: Path) -> np.ndarray:
        with open_image(path, max_pixels=MAX_PIXELS) as mask:
            return read_labels(mask, self.editor.pipe.label_set).numpy()

    def _report(self, photo: Photo, out: Path) -> None:
        for note in photo.file.notes:
            print(f"{photo.file.path}: {note}")
        changed = ", ".join(self.colors or self.regions or ())
        print(f"{out}: changed {changed} of face {self.options.face} (faces found: {len(photo.faces)})")

    def _masks(self, path: Path | None, *, folder: bool) -> list[Path | None]:
        if path is None:
            return [None] * len(self.photos)
        return list(output_files(self.photos, path, folder=folder, suffix=".png"))

    def _check_files(self) -> None:
        style = self.options.style
        named = [] if style in (None, RANDOM) else [Path(style)]
        read = [*self.photos, *named, *(mask for mask in self.masks_in if mask is not None)]
        masks = [mask for mask in self.masks_out if mask is not None]
        check_outputs([*self.outputs, *masks], read)
        for mask in set(masks) & set(self.outputs):
            raise ValueError(
                f"{mask} is named by --out and by --mask-out; choose another folder or file for one"
            )

    def _style(self) -> StyleCode | None:
        style = self.options.style
        if style in (None, RANDOM):
            return None
        if Path(style).suffix == ".style":
            return self.editor.pipe.load_style(style)
        return self.editor.open(style).style()

    def _command(self) -> str:
        """Return what decides the result beside the photo."""
        return request_digest(
            *(getattr(self.options, name) for name in ("face", "strength", "detail")),
            self.sampling.seed,
            self.sampling.used_steps,
            self.options.gps,
            self.options.precision,  # not the one that "auto" measured, which may differ the next time
            self.editor.pipe.fingerprint,
            fingerprint(self.editor.parser.network),
            sorted((self.colors or {}).items()),
            self.regions,
            self.options.style if self.style is None else self.style.codes.tolist(),
        )
