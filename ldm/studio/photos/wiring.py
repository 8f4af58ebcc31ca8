"""Wiring of the photo tab: which event calls which handler."""

from typing import Any

import gradio as gr

from ldm.studio.errors import with_user_errors
from ldm.studio.face_events import FaceEvents
from ldm.studio.photos.events import COLOR, FACE, PHOTO, PhotoEvents
from ldm.studio.photos.panel import PhotoPanel

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
    out = [
        panel.status, panel.faces, panel.picker, panel.compare, panel.download, panel.undo, panel.redo, panel.edits,
        panel.painter,
    ]  # fmt: skip
    opened.then(photos.begin, None, out, **PRIVATE)
    panel.upload.upload(photos.open, [panel.upload], out, **PRIVATE)
    parser: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "parser", **PRIVATE}
    panel.faces.input(with_user_errors(photos.select), [panel.faces, panel.picker], out, **parser)
    panel.painter.input(
        with_user_errors(photos.paint),
        [panel.painter, panel.picker],
        out,
        trigger_mode="always_last",
        **PRIVATE,
    )
    edit = [
        panel.picker, panel.reference, panel.color, panel.other, panel.strength, panel.detail, panel.seed,
        panel.lock_seed, panel.steps,
    ]  # fmt: skip
    panel.apply.click(photos.edit, edit, [*out, panel.seed], **PRIVATE)
    panel.cancel.click(photos.cancel, None, None, queue=False, **PRIVATE)
    for button, by in ((panel.undo, -1), (panel.redo, 1)):
        button.click(with_user_errors(photos.step), [gr.State(by), panel.picker], out, **parser)
    panel.reference.change(
        lambda kind: [gr.update(visible=kind != COLOR), *(gr.update(visible=kind == one) for one in KINDS)],
        [panel.reference],
        [panel.note, panel.color_group, panel.gallery_group, panel.other_group],
        queue=False,
        **PRIVATE,
    )
    _wire_gallery(photos, faces, panel)


def _wire_gallery(photos: PhotoEvents, faces: FaceEvents, panel: PhotoPanel) -> None:
    cards, number = panel.gallery, gr.State(0)
    page_of: list[Any] = [cards.source, cards.search]
    found = [cards.gallery, cards.status, number]
    panel.reference.select(with_user_errors(faces.first_page), page_of, found, **PRIVATE)
    for event in (cards.source.change, cards.search.change):
        event(with_user_errors(faces.first_page), page_of, found, trigger_mode="always_last", **PRIVATE)
    for button, by in ((cards.previous, -1), (cards.next, 1)):
        button.click(with_user_errors(faces.change_page), [*page_of, number, gr.State(by)], found, **PRIVATE)
    cards.gallery.select(with_user_errors(photos.choose), [*page_of, number], panel.chosen, **PRIVATE)
