"""Layout of the photo tab."""

from dataclasses import dataclass

import gradio as gr

from ldm.data.labels import LabelSet
from ldm.pipeline.options import DEFAULT_STEPS
from ldm.studio import panels, widgets
from ldm.studio.controls import MAX_STEPS
from ldm.studio.mask_painter import mask_painter
from ldm.studio.photos.events import COLOR, DETAILS, FACE, PHOTO, RANDOM
from ldm.studio.photos.widgets import color_choice, photo_faces
from ldm.studio.server.upload_folder import MAX_BYTES

FILE_TYPES = [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".avif"]
SYNTHETIC_NOTE = (
    "This model was trained on synthetic faces: on photos, only **Color** gives good results. For the other "
    "references, start the studio with `--checkpoint` and a model trained on photos."
)


@dataclass(frozen=True)
class ReferencePanel:
    """Choice of the reference: its kind, and one group of components per kind."""

    kind: gr.Radio
    note: gr.Markdown
    color_group: gr.Group
    color: gr.HTML
    gallery_group: gr.Group
    gallery: panels.GalleryPanel
    chosen: gr.Markdown
    photo_group: gr.Group
    photo: gr.File


@dataclass(frozen=True)
class AdvancedPanel:
    """Options of an edit that most people leave alone."""

    strength: gr.Slider
    detail: gr.Radio
    seed: gr.Number
    lock_seed: gr.Checkbox
    steps: gr.Slider


@dataclass(frozen=True)
class ResultPanel:
    """The photo before and after, and what can be done with it."""

    status: gr.HTML
    compare: gr.ImageSlider
    undo: gr.Button
    redo: gr.Button
    download: gr.DownloadButton
    edits: gr.Markdown
    painter: gr.HTML


@dataclass(frozen=True)
class PhotoPanel:
    """Components of the photo tab."""

    upload: gr.File
    faces: gr.HTML
    picker: gr.HTML
    reference: ReferencePanel
    apply: gr.Button
    cancel: gr.Button
    advanced: AdvancedPanel
    result: ResultPanel


def build(label_set: LabelSet, sources: list[str], transfers_styles: bool) -> PhotoPanel:
    """Lay out the tab: photo and reference on the left, the result on the right."""
    with gr.Row(elem_id="photo-studio", elem_classes="columns"):
        with gr.Column(scale=6, min_width=320):
            upload = _photo_file(f"Your photo, up to {MAX_BYTES // 1_000_000} MB", "photo-upload", 80)
            with gr.Row(elem_id="photo-pickers"):
                faces = photo_faces()
                picker = widgets.face_picker(label_set, "face-photo", "Face", pickable=True)
            reference = _reference(sources, transfers_styles)
            with gr.Row(elem_id="photo-go", elem_classes="go"):
                apply = gr.Button("Apply", variant="primary", elem_id="photo-apply", scale=3)
                cancel = gr.Button("Cancel", elem_id="photo-cancel", scale=1, min_width=90)
            advanced = _advanced()
        with gr.Column(scale=7, min_width=320):
            result = _result(label_set)
    return PhotoPanel(upload, faces, picker, reference, apply, cancel, advanced, result)


def _photo_file(label: str, elem_id: str, height: int) -> gr.File:
    return gr.File(label=label, file_types=FILE_TYPES, type="filepath", height=height, elem_id=elem_id)


def _reference(sources: list[str], transfers_styles: bool) -> ReferencePanel:
    kind = gr.Radio(
        [COLOR, FACE, PHOTO, RANDOM], value=COLOR, label="Style source", elem_id="photo-reference"
    )
    note = gr.Markdown("" if transfers_styles else SYNTHETIC_NOTE, visible=False, elem_id="photo-note")
    with gr.Group() as color_group:
        color = color_choice("auburn")
    with gr.Group(visible=False) as gallery_group:
        gallery = panels.gallery(sources, "photo-", with_role=False)
        chosen = gr.Markdown("No reference selected", elem_id="photo-chosen")
    with gr.Group(visible=False) as photo_group:
        photo = _photo_file("Reference photo (its largest face is used)", "photo-other", 132)
    return ReferencePanel(kind, note, color_group, color, gallery_group, gallery, chosen, photo_group, photo)


def _advanced() -> AdvancedPanel:
    with gr.Accordion("Advanced", open=False, elem_id="photo-advanced"):
        strength = gr.Slider(0, 100, 100, step=5, label="Strength in %", elem_id="photo-strength")
        detail = gr.Radio(list(DETAILS), value=next(iter(DETAILS)), label="Detail", elem_id="photo-detail")
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=110, elem_id="photo-seed")
            lock_seed = gr.Checkbox(False, label="Lock seed", min_width=110)
            steps = gr.Slider(
                1, MAX_STEPS, DEFAULT_STEPS, step=1, label="Steps", min_width=130, elem_id="photo-steps"
            )
    return AdvancedPanel(strength, detail, seed, lock_seed, steps)


def _result(label_set: LabelSet) -> ResultPanel:
    status = widgets.status("status-photo")
    compare = gr.ImageSlider(
        label="Before and after",
        show_label=False,
        type="filepath",
        interactive=False,
        buttons=["fullscreen"],
        max_height=760,
        elem_id="photo-compare",
    )
    with gr.Row(elem_id="photo-after"):
        undo = gr.Button("Undo", elem_id="photo-undo", interactive=False, min_width=90, size="md")
        redo = gr.Button("Redo", elem_id="photo-redo", interactive=False, min_width=90, size="md")
        download = gr.DownloadButton(
            "Download", elem_id="photo-download", interactive=False, min_width=110, size="md"
        )
    edits = gr.Markdown(elem_id="photo-edits")
    with gr.Accordion("Edit the label map", open=False, elem_id="photo-mask"):
        painter = mask_painter(label_set, "painter-photo")
    return ResultPanel(status, compare, undo, redo, download, edits, painter)
