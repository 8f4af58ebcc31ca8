"""Layout of the panels; the events are in face_events.py and sampling_events.py."""

from dataclasses import dataclass

import gradio as gr

from ldm.data.labels import LabelSet
from ldm.studio import widgets
from ldm.studio.face_events import MINE, REFERENCE
from ldm.studio.mask_painter import mask_painter
from ldm.studio.sampling_events import MAX_FRAMES, STYLES
from ldm.studio.server.upload_folder import MAX_BYTES

NO_PARSER = (
    "This studio has no **face parser**, which segments photos into regions. Start it with "
    '`--parser FOLDER` or `--parser owner/name` (`pip install -e ".[evaluation]"`; docs/train.md '
    "explains how to train one), or upload a label map with the photo: a PNG with one region index per pixel."
)
WITH_PARSER = (
    "The photo is aligned, cropped to the face and segmented by a face parser. Only its pixels are used; the file is "
    "deleted within hours. An uploaded label map replaces the parser's."
)


@dataclass(frozen=True)
class Faces:
    """The two faces and the style source."""

    mine: gr.HTML
    reference: gr.HTML
    style: gr.Radio
    swap_faces: gr.Button


@dataclass(frozen=True)
class GalleryPanel:
    """Gallery of faces."""

    role: gr.Radio
    source: gr.Radio
    search: gr.Textbox
    gallery: gr.Gallery
    previous: gr.Button
    status: gr.Markdown
    next: gr.Button


@dataclass(frozen=True)
class OwnPanel:
    """Upload of a photo."""

    photo: gr.File
    mask: gr.File
    use: gr.Button
    use_as_reference: gr.Button


@dataclass(frozen=True)
class PartsPanel:
    """Styles from several references."""

    amount: gr.Slider
    add: gr.Button
    clear: gr.Button
    listed: gr.Markdown


@dataclass(frozen=True)
class StripPanel:
    """Interpolation."""

    frames: gr.Slider
    make: gr.Button
    animation: gr.HTML


@dataclass(frozen=True)
class ResultPanel:
    """Result and history."""

    make: gr.Button
    cancel: gr.Button
    status: gr.HTML
    compare: gr.HTML
    continue_editing: gr.Button
    history: gr.Gallery
    recipe: gr.UploadButton


def faces(label_set: LabelSet) -> Faces:
    """Lay out the target and the reference."""
    with gr.Row(elem_id="faces"):
        mine = widgets.face_picker(label_set, "face-mine", MINE, pickable=True)
        reference = widgets.face_picker(label_set, "face-reference", REFERENCE, pickable=False)
    with gr.Row(elem_id="style-row"):
        style = gr.Radio(list(STYLES), value=STYLES[0], label="Style source", elem_id="style", scale=3)
        swap_faces = gr.Button("⇄ Swap faces", size="sm", scale=0, min_width=140, elem_id="swap-faces")
    return Faces(mine, reference, style, swap_faces)


def gallery(sources: list[str], prefix: str = "", with_role: bool = True) -> GalleryPanel:
    """Lay out a gallery of faces.

    Args:
        sources: names of the sources.
        prefix: prefix of the element ids.
        with_role: show the choice of whether a click sets the face or the reference.
    """
    with gr.Row():
        role = gr.Radio(
            [MINE, REFERENCE],
            value=MINE,
            label="A click sets",
            elem_id=f"{prefix}role",
            min_width=215,
            visible=with_role,
        )
        source = gr.Radio(
            sources,
            value=sources[0],
            label="Source",
            visible=len(sources) > 1,
            elem_id=f"{prefix}source",
            min_width=215,
        )
        search = gr.Textbox(
            label="Search by name", placeholder="0012", elem_id=f"{prefix}search", min_width=140
        )
    gallery = gr.Gallery(
        label="Faces",
        show_label=False,
        columns=8,
        height=None,
        allow_preview=False,
        object_fit="cover",
        interactive=False,
        buttons=[],
        elem_id=f"{prefix}gallery",
        elem_classes="face-grid",
    )
    with gr.Row(elem_classes="pages"):
        previous = gr.Button("← Previous", size="sm", min_width=80, scale=0)
        status = gr.Markdown(elem_id=f"{prefix}page-status", elem_classes="page-status")
        following = gr.Button("Next →", size="sm", min_width=80, scale=0)
    return GalleryPanel(role, source, search, gallery, previous, status, following)


def own(has_parser: bool) -> OwnPanel:
    """Lay out the upload of a photo."""
    gr.Markdown(WITH_PARSER if has_parser else NO_PARSER)
    megabytes = MAX_BYTES // 1_000_000
    with gr.Row():
        photo = gr.File(
            label=f"Photo: JPEG, PNG or WebP, up to {megabytes} MB",
            file_types=[".jpg", ".jpeg", ".png", ".webp"],
            type="binary",
            elem_id="own-photo",
            height=150,
        )
        mask = gr.File(
            label="Label map: PNG, one region index per pixel" + (" (optional)" if has_parser else ""),
            file_types=[".png"],
            type="binary",
            elem_id="own-mask",
            height=150,
        )
    with gr.Row():
        use = gr.Button("Use as your face", size="md", elem_id="own-use", min_width=140)
        use_as_reference = gr.Button("Use as reference", size="md", min_width=140)
    return OwnPanel(photo, mask, use, use_as_reference)


def parts() -> PartsPanel:
    """Lay out the list of several references."""
    gr.Markdown(
        "Select regions and a reference and **add** them; repeat with other regions and references. Later "
        "entries override earlier ones."
    )
    amount = gr.Slider(
        0, 150, 100, step=5, label="Style strength in % (above 100 extrapolates)", elem_id="amount"
    )
    with gr.Row():
        add = gr.Button("Add selected regions", size="md", elem_id="add-part", min_width=140)
        clear = gr.Button("Clear list", size="md", min_width=140)
    listed = gr.Markdown(elem_id="parts")
    return PartsPanel(amount, add, clear, listed)


def mask(label_set: LabelSet) -> tuple[gr.HTML, gr.File]:
    """Lay out the painter and the upload of a label map."""
    painter = mask_painter(label_set)
    with gr.Accordion("Upload a label map", open=False):
        file = gr.File(
            label="PNG, one region index per pixel", file_types=[".png"], type="binary", height=120
        )
    return painter, file


def strip() -> StripPanel:
    """Lay out the interpolation."""
    gr.Markdown("Interpolate the selected regions from your face's style to the selected style.")
    with gr.Row(elem_id="strip-row"):
        frames = gr.Slider(2, MAX_FRAMES, 7, step=1, label="Frames", elem_id="frames", min_width=160)
        make = gr.Button("Generate interpolation", size="md", elem_id="make-strip", min_width=140)
    return StripPanel(frames, make, widgets.animation())


def result() -> ResultPanel:
    """Lay out the result, below the controls."""
    with gr.Row(elem_id="go", elem_classes="go"):
        make = gr.Button("Generate", variant="primary", elem_id="make", scale=3)
        cancel = gr.Button("Cancel", elem_id="cancel", scale=1, min_width=90)
    status = widgets.status()
    compare = widgets.compare()
    continue_editing = gr.Button("Continue editing this image", size="sm", elem_id="continue-editing")
    history = gr.Gallery(
        label="History",
        columns=6,
        height=None,
        allow_preview=False,
        object_fit="cover",
        interactive=False,
        buttons=[],
        elem_id="history",
        elem_classes="face-grid",
    )
    recipe = gr.UploadButton(
        "Load recipe: reproduce an image from its PNG",
        file_types=[".png"],
        type="binary",
        size="sm",
        elem_id="recipe",
    )
    return ResultPanel(make, cancel, status, compare, continue_editing, history, recipe)
