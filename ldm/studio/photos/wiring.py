"""Wiring of the photo tab: which event calls which handler."""

from typing import Any

import gradio as gr

from ldm.studio.errors import with_user_errors
from ldm.studio.face_events import FaceEvents
from ldm.studio.photos.events import COLOR, FACE, PHOTO, PhotoEvents
from ldm.studio.photos.panel import PhotoPanel, ReferencePanel

PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

KINDS = (COLOR, FACE, PHOTO)  # those with further components


def wire(photos: PhotoEvents, faces: FaceEvents, panel: PhotoPanel, opened: Any) -> None:
    """Connect the events of the photo tab.

    Args:
        photos: handlers of the photo.
        faces: handlers of the gallery.
        panel: the components.
        opened: event after the session was created.
    """
    reference, advanced, result = panel.reference, panel.advanced, panel.result
    out = [
        result.status, panel.faces, panel.picker, result.compare, result.download, result.undo, result.redo,
        result.edits, result.painter,
    ]  # fmt: skip
    opened.then(photos.begin, None, out, **PRIVATE)
    panel.upload.upload(photos.open, [panel.upload], out, **PRIVATE)
    parser: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "parser", **PRIVATE}
    panel.faces.input(with_user_errors(photos.select), [panel.faces, panel.picker], out, **parser)
    result.painter.input(
        with_user_errors(photos.paint),
        [result.painter, panel.picker],
        out,
        trigger_mode="always_last",
        **PRIVATE,
    )
    edit = [
        panel.picker, reference.kind, reference.color, reference.photo, advanced.strength, advanced.detail,
        advanced.seed, advanced.lock_seed, advanced.steps,
    ]  # fmt: skip
    panel.apply.click(photos.edit, edit, [*out, advanced.seed], **PRIVATE)
    panel.cancel.click(photos.cancel, None, None, queue=False, **PRIVATE)
    for button, by in ((result.undo, -1), (result.redo, 1)):
        button.click(with_user_errors(photos.step), [gr.State(by), panel.picker], out, **parser)
    _wire_reference(photos, faces, reference)


def _wire_reference(photos: PhotoEvents, faces: FaceEvents, reference: ReferencePanel) -> None:
    reference.kind.change(
        lambda kind: [gr.update(visible=kind != COLOR), *(gr.update(visible=kind == one) for one in KINDS)],
        [reference.kind],
        [reference.note, reference.color_group, reference.gallery_group, reference.photo_group],
        queue=False,
        **PRIVATE,
    )
    cards, number = reference.gallery, gr.State(0)
    page_of: list[Any] = [cards.source, cards.search]
    found = [cards.gallery, cards.status, number]
    reference.kind.select(with_user_errors(faces.first_page), page_of, found, **PRIVATE)
    for event in (cards.source.change, cards.search.change):
        event(with_user_errors(faces.first_page), page_of, found, trigger_mode="always_last", **PRIVATE)
    for button, by in ((cards.previous, -1), (cards.next, 1)):
        button.click(with_user_errors(faces.change_page), [*page_of, number, gr.State(by)], found, **PRIVATE)
    cards.gallery.select(with_user_errors(photos.choose), [*page_of, number], reference.chosen, **PRIVATE)
