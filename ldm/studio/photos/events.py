"""Events of the photo tab."""

import io
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ldm.pipeline.options import Preview, Progress, SamplingOptions
from ldm.studio.controls import MAX_STEPS, SEEDS
from ldm.studio.errors import sentence
from ldm.studio.faces import FaceGallery
from ldm.studio.jobs import CancelledError, Jobs, Report
from ldm.studio.mask_painter import painter_value
from ldm.studio.photos.backend import Example, PhotoBackend, PhotoEdit
from ldm.studio.photos.opened import OpenedPhoto
from ldm.studio.text import escaped
from ldm.studio.visitors import Visitors
from ldm.studio.widgets import data_url, face_value

COLOR, FACE, PHOTO, RANDOM = "Color", "Gallery face", "Another photo", "Random"
DETAILS = {"Keep the photo's texture": "keep", "Use generated pixels": "replace"}
VIEW = 1200  # longest side of the photo in the face selector, in pixels
View = tuple[Any, ...]  # status, faces, picker, compare, download, undo, redo, edits, painter
UNCHANGED = (gr.skip(),) * 8


class PhotoEvents:
    """Event handlers of the photo tab."""

    def __init__(
        self, visitors: Visitors, backend: PhotoBackend, gallery: FaceGallery, jobs: Jobs, example: Example
    ) -> None:
        self.visitors, self.backend, self.gallery, self.jobs = visitors, backend, gallery, jobs
        self.example = example

    def begin(self, request: gr.Request) -> Iterator[View]:
        """Show the example photo with its edit."""
        yield _busy("Opening the example photo"), *UNCHANGED
        try:
            opened = self.visitors.of(request).photo = self.example.get()
            yield (
                _done(
                    "Example photo, with auburn hair. Upload your own photo, or select regions and a color."
                ),
                *self._all(opened),
            )
        except Exception as error:
            yield _error(error), *UNCHANGED

    def open(self, request: gr.Request, path: str | None) -> Iterator[View]:
        """Open an uploaded photo and find its faces."""
        if path is None:
            yield (gr.skip(), *UNCHANGED)
            return
        message: list[str] = []

        def work(progress: Progress, preview: Preview) -> None:
            opened, problem = self.backend.open(Path(path))
            self.backend.chosen(opened)
            count = len(opened.faces)
            found = "1 face found" if count == 1 else f"{count} faces found; click the one to edit"
            notes = "".join(f" ({note})" for note in opened.file.notes)
            message.append(problem or f"{found}{notes}. Select regions and a reference, then click Apply.")
            self.visitors.of(request).photo = opened

        yield from self._run(request, work, "Finding faces", lambda: message[0])

    def select(self, request: gr.Request, view: dict[str, Any], picker: dict[str, Any]) -> View:
        """Select a face, or place its crop."""
        opened = self._opened(request)
        opened.regions = self._regions(picker)
        face, crop = view.get("face"), view.get("crop")
        if not isinstance(face, int) or not 0 <= face < len(opened.faces):
            raise ValueError("that face is no longer on the page; upload the photo again")
        opened.face = face
        if crop is not None:
            x, y, right, down = (float(value) for value in crop)
            self.backend.place(opened, complex(x, y), complex(right, down))
        return _done(f"Face {face + 1} is selected"), *self._all(opened)

    def edit(
        self,
        request: gr.Request,
        picker: dict[str, Any],
        reference: str,
        color: dict[str, Any],
        other: str | None,
        strength: float,
        detail: str,
        seed: float,
        lock_seed: bool,
        steps: float,
    ) -> Iterator[tuple[Any, ...]]:
        """Edit the selected regions; the last value is the seed."""
        try:
            opened = self._opened(request)
            edit = self._edit(request, picker, reference, color, other, strength, detail)
            how = _options(seed, lock_seed, steps)
            opened.regions = edit.regions
        except Exception as error:
            yield _error(error), *UNCHANGED, gr.skip()
            return

        def work(progress: Progress, preview: Preview) -> None:
            options: SamplingOptions = {**how, "progress": progress}
            self.backend.edit(opened, edit, options)

        began = time.monotonic()
        for view in self._run(
            request, work, "Editing", lambda: f"Done in {time.monotonic() - began:.0f} s: {edit.title()}"
        ):
            yield *view, how["seed"]

    def step(self, request: gr.Request, by: int, picker: dict[str, Any]) -> View:
        """Undo or redo an edit."""
        opened = self._opened(request)
        opened.regions = self._regions(picker)
        opened.step(by)
        return _done("Undone" if by < 0 else "Redone"), *self._all(opened)

    def paint(self, request: gr.Request, painter: dict[str, Any], picker: dict[str, Any]) -> View:
        """Use a painted label map."""
        opened = self._opened(request)
        opened.regions = self._regions(picker)
        self.backend.paint(opened, painter.get("labels", ""))
        return (
            _done("Edits now use the painted label map"),
            gr.skip(),
            self._picker(opened),
            *UNCHANGED[2:],
        )

    def choose(self, request: gr.Request, source: str, text: str, page: int, chosen: gr.SelectData) -> str:
        """Set a face of the gallery as reference."""
        names = self.gallery.search(source, text)
        index = page * FaceGallery.PAGE + int(chosen.index)
        if not 0 <= index < len(names):
            raise ValueError("that face is no longer on this page; search again")
        self.visitors.of(request).photo_reference = self.gallery.face(source, names[index])
        return f"Reference: **{escaped(names[index])}**"

    def cancel(self, request: gr.Request) -> None:
        """Cancel the job within one step."""
        self.jobs.queue.cancel(str(request.session_hash))

    def _opened(self, request: gr.Request) -> OpenedPhoto:
        opened = self.visitors.of(request).photo
        if opened is None:
            raise ValueError("upload a photo first")
        if not opened.keep():
            self.visitors.of(request).photo = None
            raise ValueError(
                "the files of this photo were deleted after hours without use, or for lack of space; upload it again"
            )
        return opened

    def _regions(self, picker: Any) -> tuple[str, ...]:
        """Return the selected regions; raise ValueError for an unknown one."""
        regions = picker.get("regions") if isinstance(picker, dict) else None
        self.backend.parser.label_set.indices(regions or [])
        return tuple(regions or ())

    def _edit(
        self,
        request: gr.Request,
        picker: dict[str, Any],
        reference: str,
        color: dict[str, Any],
        other: str | None,
        strength: float,
        detail: str,
    ) -> PhotoEdit:
        regions = self._regions(picker)
        if not regions:
            raise ValueError("select regions first: click them on the face, or their names below it")
        if reference == FACE and self.visitors.of(request).photo_reference is None:
            raise ValueError("select a face in the gallery first")
        if reference == PHOTO and other is None:
            raise ValueError("upload the other photo first")
        return PhotoEdit(
            regions=regions,
            color=str(color.get("color", "")) if reference == COLOR else None,
            face=self.visitors.of(request).photo_reference if reference == FACE else None,
            photo=Path(other) if reference == PHOTO and other else None,
            strength=float(strength) / 100,
            detail="replace" if DETAILS.get(detail) == "replace" else "keep",
        )

    def _run(
        self,
        request: gr.Request,
        work: Callable[[Progress, Preview], None],
        doing: str,
        done: Callable[[], str],
    ) -> Iterator[View]:
        """Run a job; yield its progress, then the photo."""

        def make(progress: Progress, preview: Preview) -> list[Any]:
            work(progress, preview)
            return []

        last = Report()
        try:
            self.visitors.of(request)
            for report in self.jobs.run_for(request, make):
                if isinstance(report.error, CancelledError):
                    yield {"text": "Canceled", "state": "canceled"}, *UNCHANGED
                elif report.error is not None:
                    raise report.error
                elif report.made is None:
                    last = report
                    text = last.summary() if last.jobs_ahead or last.total else doing
                    yield {**_busy(text), "done": last.done, "total": last.total}, *UNCHANGED
                else:
                    yield _done(done()), *self._all(self._opened(request))
        except Exception as error:
            yield _error(error), *UNCHANGED

    # --- values of the components ---

    def _all(self, opened: OpenedPhoto) -> View:
        face = self.backend.chosen(opened)
        version, saved = opened.current, opened.current.saved
        before = opened.versions[0].preview
        edits = "\n".join(f"{number}. {escaped(one)}" for number, one in enumerate(opened.edits(), 1))
        return (
            faces_value(opened),
            face_value(face, list(opened.regions)),
            gr.update(value=(str(before), str(version.preview))),
            gr.update(value=None if saved is None else str(saved), interactive=saved is not None),
            gr.update(interactive=opened.at > 0),
            gr.update(interactive=opened.at < len(opened.versions) - 1),
            edits,
            painter_value(face),
        )

    def _picker(self, opened: OpenedPhoto) -> dict[str, Any]:
        return face_value(self.backend.chosen(opened), list(opened.regions))


def faces_value(opened: OpenedPhoto) -> dict[str, Any]:
    """Return the value of the face selector: the photo and the crops of its faces."""
    image = Image.fromarray(opened.current.pixels)
    width, height = image.size
    image.thumbnail((VIEW, VIEW))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=88, icc_profile=opened.file.profile)
    crops = [face.crop for face in opened.faces]
    return {
        "picture": data_url(data.getvalue(), "image/jpeg"),
        "name": opened.name,
        "width": width,
        "height": height,
        "faces": [[crop.center.real, crop.center.imag, crop.axis.real, crop.axis.imag] for crop in crops],
        "face": opened.face,
    }


def _options(seed: Any, lock_seed: Any, steps: Any) -> SamplingOptions:
    try:
        seed, steps = int(seed or 0), int(steps)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("seed and steps must be numbers") from error
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"steps must be in [1, {MAX_STEPS}], got {steps}")
    return {"seed": seed if lock_seed else secrets.randbelow(SEEDS), "steps": steps}


def _busy(text: str) -> dict[str, Any]:
    return {"text": text, "state": "busy"}


def _done(text: str) -> dict[str, Any]:
    return {"text": text, "state": "done", "at": time.time()}


def _error(error: Exception) -> dict[str, Any]:
    return {"text": sentence(error), "state": "error", "at": time.time()}
