"""The web page: layout of the panels and wiring of the events."""

from pathlib import Path
from typing import Any

import gradio as gr

from ldm.parsing import FaceParser
from ldm.studio import controls, panels
from ldm.studio.api import Api
from ldm.studio.errors import with_user_errors
from ldm.studio.face_events import MINE, REFERENCE, FaceEvents
from ldm.studio.faces import FaceGallery
from ldm.studio.jobs import Jobs
from ldm.studio.models import Models
from ldm.studio.photos import panel as photo_panel
from ldm.studio.photos.backend import Example, PhotoBackend
from ldm.studio.photos.events import PhotoEvents
from ldm.studio.photos.wiring import PRIVATE
from ldm.studio.photos.wiring import wire as wire_photos
from ldm.studio.sampling_events import SamplingEvents
from ldm.studio.server.upload_folder import UploadFolder
from ldm.studio.text import escaped
from ldm.studio.visitors import Visitors

CSS = Path(__file__).parent / "static" / "theme.css"
HEADER = """
<header><h1>SCA-DM studio</h1>
<p class="model">{model}</p>
<button type="button" id="shortcuts-open" aria-label="Keyboard shortcuts" title="Keyboard shortcuts">?</button></header>
"""
EXAMPLE = "assets/photos/astronaut.jpg"
HOUR = 3600


def theme() -> gr.themes.Base:
    """Return the theme, with system fonts only."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.stone,
        font=fonts,
        font_mono=["ui-monospace", "Consolas", "monospace"],
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        # Text, white on buttons included, needs a contrast of 4.5 to its background.
        body_text_color_subdued="*neutral_500",
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


def build(
    models: Models,
    gallery: FaceGallery,
    parser: FaceParser | None,
    jobs: Jobs,
    uploads: UploadFolder,
    root: Path,
) -> gr.Blocks:
    """Build the page; without a parser, it has no tab for whole photos."""
    pipe, visitors = models.pipe, Visitors()
    faces = FaceEvents(visitors, gallery, parser, pipe)
    size = f"{pipe.size[1]} by {pipe.size[0]}"
    with gr.Blocks(
        title="SCA-DM studio", analytics_enabled=False, delete_cache=(HOUR, 6 * HOUR), fill_width=True
    ) as page:
        about = escaped(f"{models.checkpoint}, {size} pixels, {pipe.device.type}")
        gr.HTML(HEADER.format(model=about), elem_id="header")
        with gr.Tabs(elem_id="main-tabs"):
            if parser is not None:
                with gr.Tab("Your photo", id="photo"):
                    backend = PhotoBackend(models, parser, uploads)
                    panel = photo_panel.build(pipe.label_set, list(gallery.sources), backend.transfers_styles)
            with gr.Tab("Aligned faces", id="aligned", render_children=True):
                opened = _aligned(page, models, faces, gallery, SamplingEvents(visitors, models, jobs))
        if parser is not None:
            photos = PhotoEvents(visitors, backend, gallery, jobs, Example(backend, root / EXAMPLE))
            wire_photos(photos, faces, panel, opened)
        Api(models, gallery, jobs).add()
    return page


def _aligned(
    page: gr.Blocks, models: Models, faces: FaceEvents, gallery: FaceGallery, makes: SamplingEvents
) -> Any:
    """Lay out and wire the tab of faces at the model's size; return the event that creates the session."""
    with gr.Row(elem_id="studio", elem_classes="columns"):
        with gr.Column(scale=6, min_width=320):
            chosen = panels.faces(models.pipe.label_set)
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Faces", id="faces"):
                    cards = panels.gallery(list(gallery.sources))
                with gr.Tab("Upload", id="own"):
                    own = panels.own(faces.parser is not None)
                with gr.Tab("Edits", id="parts"):
                    parts = panels.parts()
                with gr.Tab("Labels", id="mask", render_children=True):
                    painter, mask_file = panels.mask(models.pipe.label_set)
                with gr.Tab("Interpolation", id="strip"):
                    strip = panels.strip()
        with gr.Column(scale=5, min_width=320):
            settings = controls.build(models.kinds)
            result = panels.result()
    face_views = [chosen.mine, chosen.reference, painter]
    _wire_making(makes, chosen, parts, strip, result, settings, painter)
    return _wire_faces(page, faces, chosen, cards, own, face_views, mask_file)


def _wire_faces(
    page: gr.Blocks,
    faces: FaceEvents,
    chosen: panels.Faces,
    cards: panels.GalleryPanel,
    own: panels.OwnPanel,
    face_views: list[gr.HTML],
    mask_file: gr.File,
) -> Any:
    """Connect the face events; return the one that opens the page."""
    number = gr.State(0)
    page_of: list[Any] = [cards.source, cards.search]
    found = [cards.gallery, cards.status, number]
    opened = page.load(with_user_errors(faces.open), None, [*face_views, *found], **PRIVATE)
    for event in (cards.source.change, cards.search.change):
        event(with_user_errors(faces.first_page), page_of, found, trigger_mode="always_last", **PRIVATE)
    for button, by in ((cards.previous, -1), (cards.next, 1)):
        button.click(with_user_errors(faces.change_page), [*page_of, number, gr.State(by)], found, **PRIVATE)
    cards.gallery.select(
        with_user_errors(faces.choose), [chosen.mine, *page_of, number, cards.role], face_views, **PRIVATE
    )
    for button, role in ((own.use, MINE), (own.use_as_reference, REFERENCE)):
        button.click(
            with_user_errors(faces.upload),
            [chosen.mine, own.photo, own.mask, gr.State(role)],
            face_views,
            concurrency_limit=1,
            concurrency_id="parser",
            **PRIVATE,
        )
    chosen.swap_faces.click(with_user_errors(faces.swap_faces), [chosen.mine], face_views, **PRIVATE)
    mask_file.upload(with_user_errors(faces.load_mask), [mask_file], face_views[-1], **PRIVATE)
    return opened


def _wire_making(
    makes: SamplingEvents,
    chosen: panels.Faces,
    parts: panels.PartsPanel,
    strip: panels.StripPanel,
    result: panels.ResultPanel,
    settings: list[gr.components.Component],
    painter: gr.HTML,
) -> None:
    """Connect the sampling events."""
    seed, lock_seed, _, _, steps, solver, guidance, _ = settings
    choice: list[Any] = [chosen.mine, chosen.style, parts.amount, painter]
    out = [result.status, result.compare, result.history, strip.animation, seed]
    result.make.click(makes.make, [*choice, *settings], out, **PRIVATE)
    strip.make.click(makes.sample_interpolation, [strip.frames, *choice, *settings], out, **PRIVATE)
    result.cancel.click(makes.cancel, None, None, queue=False, **PRIVATE)
    result.recipe.upload(makes.load_recipe, [result.recipe], out, **PRIVATE).then(
        makes.recall, None, [lock_seed, steps, solver, guidance], **PRIVATE
    )
    parts.add.click(
        with_user_errors(makes.add_part),
        [chosen.mine, chosen.style, parts.amount],
        [parts.listed, chosen.mine],
        **PRIVATE,
    )
    parts.clear.click(with_user_errors(makes.clear_parts), None, parts.listed, **PRIVATE)
    result.history.select(with_user_errors(makes.show), None, result.compare, **PRIVATE)
    result.continue_editing.click(
        with_user_errors(makes.continue_editing), [chosen.mine], [chosen.mine, painter], **PRIVATE
    )
