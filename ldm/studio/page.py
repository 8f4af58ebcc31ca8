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
from ldm.studio.make_events import MakeEvents
from ldm.studio.models import Models

CSS = Path(__file__).parent / "static" / "theme.css"
HEADER = """
<header><h1>SCA-DM studio</h1>
<p>Select regions on your face, select a style source, press <b>Generate</b>.</p>
<p class="model">{model}</p></header>
"""
HOUR = 3600
VISITORS = 100  # sessions kept in memory
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def theme() -> gr.themes.Base:
    """Return the theme, with system fonts only."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.stone,
        font=fonts,
        font_mono=["ui-monospace", "Consolas", "monospace"],
        radius_size=gr.themes.sizes.radius_md,
    )


def build(models: Models, gallery: FaceGallery, parser: FaceParser | None, jobs: Jobs) -> gr.Blocks:
    """Build the page."""
    pipe = models.pipe
    faces, makes = FaceEvents(gallery, parser, pipe), MakeEvents(models, jobs)
    size = f"{pipe.size[1]} by {pipe.size[0]}"
    with gr.Blocks(
        title="SCA-DM studio", analytics_enabled=False, delete_cache=(HOUR, 6 * HOUR), fill_width=True
    ) as page:
        session = gr.State(None, time_to_live=12 * HOUR)
        gr.HTML(
            HEADER.format(model=f"{models.checkpoint}, {size} pixels, {pipe.device.type}"), elem_id="header"
        )
        with gr.Row(elem_id="studio"):
            with gr.Column(scale=6, min_width=320):
                chosen = panels.faces(pipe.label_set)
                with gr.Tabs(elem_id="tabs"):
                    with gr.Tab("Faces", id="faces"):
                        cards = panels.gallery(list(gallery.sources))
                    with gr.Tab("Upload", id="own"):
                        own = panels.own(parser is not None)
                    with gr.Tab("Styles", id="parts"):
                        parts = panels.parts()
                    with gr.Tab("Mask", id="mask", render_children=True):
                        painter, mask_file = panels.mask(pipe.label_set)
                    with gr.Tab("Interpolation", id="strip"):
                        strip = panels.strip()
            with gr.Column(scale=5, min_width=320):
                with gr.Group(elem_id="controls"):
                    settings = controls.build(models.kinds)
                result = panels.result()
        shown = [chosen.mine, chosen.reference, painter]
        _wire_faces(page, faces, session, chosen, cards, own, shown, mask_file)
        _wire_making(makes, session, chosen, parts, strip, result, settings, painter)
        Api(models, gallery, jobs).add()
    return page


def _wire_faces(
    page: gr.Blocks,
    faces: FaceEvents,
    session: gr.State,
    chosen: panels.Faces,
    cards: panels.GalleryPanel,
    own: panels.OwnPanel,
    shown: list[gr.HTML],
    mask_file: gr.File,
) -> None:
    """Connect the face events."""
    number = gr.State(0)
    page_of: list[Any] = [cards.source, cards.search]
    found = [cards.gallery, cards.said, number]
    page.load(with_user_errors(faces.open), None, [session, *shown, *found], **QUIET)
    for event in (cards.source.change, cards.search.change):
        event(with_user_errors(faces.first_page), page_of, found, trigger_mode="always_last", **QUIET)
    for button, by in ((cards.back, -1), (cards.on, 1)):
        button.click(with_user_errors(faces.change_page), [*page_of, number, gr.State(by)], found, **QUIET)
    cards.gallery.select(
        with_user_errors(faces.choose), [session, chosen.mine, *page_of, number, cards.role], shown, **QUIET
    )
    for button, role in ((own.use, MINE), (own.use_as_reference, REFERENCE)):
        button.click(
            with_user_errors(faces.bring),
            [session, chosen.mine, own.photo, own.mask, gr.State(role)],
            shown,
            concurrency_limit=1,
            concurrency_id="parser",
            **QUIET,
        )
    chosen.exchange.click(with_user_errors(faces.exchange), [session, chosen.mine], shown, **QUIET)
    mask_file.upload(with_user_errors(faces.load_mask), [session, mask_file], shown[-1], **QUIET)


def _wire_making(
    makes: MakeEvents,
    session: gr.State,
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
    out = [result.status, result.compare, result.history, strip.film, seed]
    result.make.click(makes.make, [session, *choice, *settings], out, **QUIET)
    strip.make.click(makes.make_strip, [session, strip.frames, *choice, *settings], out, **QUIET)
    result.cancel.click(makes.cancel, None, None, queue=False, **QUIET)
    result.recipe.upload(makes.load_recipe, [session, result.recipe], out, **QUIET).then(
        makes.recall, [session], [lock_seed, steps, solver, guidance], **QUIET
    )
    parts.add.click(
        with_user_errors(makes.add_part),
        [session, chosen.mine, chosen.style, parts.amount],
        [parts.listed, chosen.mine],
        **QUIET,
    )
    parts.clear.click(with_user_errors(makes.clear_parts), [session], parts.listed, **QUIET)
    result.history.select(with_user_errors(makes.show), [session], result.compare, **QUIET)
    result.go_on.click(with_user_errors(makes.go_on), [session, chosen.mine], [chosen.mine, painter], **QUIET)
