"""Events of the faces: search, choose, bring one's own."""

from typing import Any

import gradio as gr

from ldm.data.faces import Face
from ldm.parsing import FaceParser
from ldm.parsing.alignment import AlignmentError
from ldm.pipeline import FacePipeline
from ldm.studio.faces import Shelf
from ldm.studio.mask_painter import painter_value
from ldm.studio.session import Session
from ldm.studio.uploads import aligned_face, masked_face, read_mask
from ldm.studio.widgets import face_value

MINE, REFERENCE = "Your face", "Reference"


class FaceEvents:
    """What happens when a visitor chooses faces."""

    def __init__(self, shelf: Shelf, parser: FaceParser | None, pipe: FacePipeline) -> None:
        self.shelf, self.parser = shelf, parser
        self.label_set, self.size = pipe.label_set, pipe.size

    def open(self) -> tuple[Any, ...]:
        """Give a new visitor two faces, hair chosen, and the first page of the shelf."""
        source = next(iter(self.shelf.sources))
        names = self.shelf.search(source, "")
        session = Session(
            self.shelf.face(source, names[0]), self.shelf.face(source, names[min(1, len(names) - 1)])
        )
        hair = [region for region in ("hair",) if region in self.label_set.regions]
        return (session, *self._shown(session, hair), *self.search(source, "", 0))

    def search(self, source: str, text: str, page: int) -> tuple[Any, str, int]:
        """Return a page of thumbnails, what it says, and its number."""
        names = self.shelf.search(source, text)
        last = max(0, (len(names) - 1) // Shelf.PAGE)
        page = min(max(0, int(page)), last)
        shown = names[page * Shelf.PAGE : (page + 1) * Shelf.PAGE]
        if not shown:
            said = f"No name has “{text.strip()[:40]}” in it"
        elif len(names) == len(shown):
            said = f"{len(names):,} faces"
        else:
            said = f"{page * Shelf.PAGE + 1:,} to {page * Shelf.PAGE + len(shown):,} of {len(names):,} faces"
        return gr.update(value=self.shelf.thumbnails(source, shown), selected_index=None), said, page

    def first_page(self, source: str, text: str) -> tuple[Any, str, int]:
        """Search anew."""
        return self.search(source, text, 0)

    def turn(self, source: str, text: str, page: int, by: int) -> tuple[Any, str, int]:
        """Turn pages."""
        return self.search(source, text, page + by)

    def choose(
        self,
        session: Session,
        picker: dict[str, Any],
        source: str,
        text: str,
        page: int,
        role: str,
        chosen: gr.SelectData,
    ) -> tuple[Any, ...]:
        """Take the face that was clicked."""
        names = self.shelf.search(source, text)
        place = page * Shelf.PAGE + int(chosen.index)
        if not 0 <= place < len(names):
            raise ValueError("that face is not on this page any more; search again")
        return self._take(session, picker, self.shelf.face(source, names[place]), role)

    def bring(
        self, session: Session, picker: dict[str, Any], photo: bytes | None, mask: bytes | None, role: str
    ) -> tuple[Any, ...]:
        """Take the visitor's own photo, with the mask that the parser finds, or the one that came with it."""
        if photo is None:
            raise ValueError("choose a photo first")
        if mask is not None:
            return self._take(session, picker, masked_face(photo, mask, self.label_set, self.size), role)
        if self.parser is None:
            raise ValueError("without a face parser the photo needs its mask: choose one as well")
        try:
            return self._take(session, picker, aligned_face(photo, self.parser, self.size), role)
        except AlignmentError as error:
            raise ValueError(f"{error}; or send its mask with it") from error

    def exchange(self, session: Session, picker: dict[str, Any]) -> tuple[Any, ...]:
        """Let the two faces change places."""
        session.face, session.reference = session.reference, session.face
        return self._shown(session, picker.get("regions"))

    def load_mask(self, session: Session, mask: bytes | None) -> dict[str, Any]:
        """Show a mask that came as a file in the painter."""
        if session.face is None or mask is None:
            raise ValueError("choose a face first, then a PNG of region numbers")
        return painter_value(session.face, read_mask(mask, self.label_set, self.size))

    def _take(self, session: Session, picker: dict[str, Any], face: Face, role: str) -> tuple[Any, ...]:
        session.use(face, as_reference=role == REFERENCE)
        shown = self._shown(session, picker.get("regions"))
        return (gr.skip(), shown[1], gr.skip()) if role == REFERENCE else shown

    def _shown(self, session: Session, regions: list[str] | None) -> tuple[Any, ...]:
        """Return what both pickers and the painter show."""
        known = [region for region in regions or [] if region in self.label_set.regions]
        painter = painter_value(session.face) if session.face else {}
        return face_value(session.face, known), face_value(session.reference), painter
