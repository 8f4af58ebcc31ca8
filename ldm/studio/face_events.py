"""Face events: search, select, upload."""

from typing import Any

import gradio as gr

from ldm.data.faces import Face
from ldm.parsing import FaceParser
from ldm.parsing.alignment import AlignmentError
from ldm.pipeline import FacePipeline
from ldm.studio.faces import FaceGallery
from ldm.studio.mask_painter import painter_value
from ldm.studio.session import Session
from ldm.studio.text import escaped
from ldm.studio.uploads import aligned_face, masked_face, read_mask
from ldm.studio.visitors import Visitors
from ldm.studio.widgets import face_value

MINE, REFERENCE = "Your face", "Reference"


class FaceEvents:
    """Event handlers for choosing faces."""

    def __init__(
        self, visitors: Visitors, gallery: FaceGallery, parser: FaceParser | None, pipe: FacePipeline
    ) -> None:
        self.visitors, self.gallery, self.parser = visitors, gallery, parser
        self.label_set, self.size = pipe.label_set, pipe.size

    def open(self, request: gr.Request) -> tuple[Any, ...]:
        """Start a session with two faces, hair selected, and the first page of the gallery."""
        source = next(iter(self.gallery.sources))
        names = self.gallery.search(source, "")
        session = self.visitors.begin(request)
        session.face, session.reference = (self.gallery.face(source, name) for name in (names * 2)[:2])
        hair = [region for region in ("hair",) if region in self.label_set.regions]
        return (*self._values(session, hair), *self.search(source, "", 0))

    def search(self, source: str, text: str, page: int) -> tuple[Any, str, int]:
        """Return a page of thumbnails, the status below it and its number."""
        names = self.gallery.search(source, text)
        last = max(0, (len(names) - 1) // FaceGallery.PAGE)
        page = min(max(0, int(page)), last)
        visible = names[page * FaceGallery.PAGE : (page + 1) * FaceGallery.PAGE]
        if not visible:
            status = f"No face matches “{escaped(text.strip()[:40])}”"
        elif len(names) == len(visible):
            status = f"{len(names):,} faces"
        else:
            first = page * FaceGallery.PAGE
            status = f"{first + 1:,} to {first + len(visible):,} of {len(names):,} faces"
        return gr.update(value=self.gallery.thumbnails(source, visible), selected_index=None), status, page

    def first_page(self, source: str, text: str) -> tuple[Any, str, int]:
        """Return the first page of a new search."""
        return self.search(source, text, 0)

    def change_page(self, source: str, text: str, page: int, by: int) -> tuple[Any, str, int]:
        """Move by `by` pages."""
        return self.search(source, text, page + by)

    def choose(
        self,
        request: gr.Request,
        picker: dict[str, Any],
        source: str,
        text: str,
        page: int,
        role: str,
        chosen: gr.SelectData,
    ) -> tuple[Any, ...]:
        """Select the clicked face."""
        session = self.visitors.of(request)
        names = self.gallery.search(source, text)
        index = page * FaceGallery.PAGE + int(chosen.index)
        if not 0 <= index < len(names):
            raise ValueError("that face is no longer on this page; search again")
        return self._take(session, picker, self.gallery.face(source, names[index]), role)

    def upload(
        self, request: gr.Request, picker: dict[str, Any], photo: bytes | None, mask: bytes | None, role: str
    ) -> tuple[Any, ...]:
        """Use an uploaded photo with its uploaded mask, or with the mask from the face parser."""
        session = self.visitors.of(request)
        if photo is None:
            raise ValueError("select a photo first")
        if mask is not None:
            return self._take(session, picker, masked_face(photo, mask, self.label_set, self.size), role)
        if self.parser is None:
            raise ValueError("this studio has no face parser: upload a label map with the photo")
        try:
            return self._take(session, picker, aligned_face(photo, self.parser, self.size), role)
        except AlignmentError as error:
            raise ValueError(f"{error}; or upload a label map with the photo") from error

    def swap_faces(self, request: gr.Request, picker: dict[str, Any]) -> tuple[Any, ...]:
        """Swap face and reference."""
        session = self.visitors.of(request)
        session.face, session.reference = session.reference, session.face
        return self._values(session, picker.get("regions"))

    def load_mask(self, request: gr.Request, mask: bytes | None) -> dict[str, Any]:
        """Load an uploaded mask into the painter."""
        session = self.visitors.of(request)
        if session.face is None or mask is None:
            raise ValueError("select a face first, then upload a PNG of region indices")
        return painter_value(session.face, read_mask(mask, self.label_set, self.size))

    def _take(self, session: Session, picker: dict[str, Any], face: Face, role: str) -> tuple[Any, ...]:
        session.use(face, as_reference=role == REFERENCE)
        values = self._values(session, picker.get("regions"))
        return (gr.skip(), values[1], gr.skip()) if role == REFERENCE else values

    def _values(self, session: Session, regions: list[str] | None) -> tuple[Any, ...]:
        """Return the values of both pickers and the painter."""
        known = [region for region in regions or [] if region in self.label_set.regions]
        painter = painter_value(session.face) if session.face else {}
        return face_value(session.face, known), face_value(session.reference), painter
