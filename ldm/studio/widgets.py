"""The page's own components: HTML and a script of static/ each, with a value that the server sets or reads."""

import base64
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from torch import Tensor

from ldm.data.faces import Face
from ldm.data.images import encode_png
from ldm.data.label_text import labels_to_text
from ldm.data.labels import LabelSet
from ldm.studio.region_names import for_browser

STATIC = Path(__file__).parent / "static"


def script(*names: str) -> str:
    """Return scripts of static/, one after the other."""
    return "\n".join((STATIC / f"{name}.js").read_text() for name in names)


def data_url(data: bytes, kind: str = "image/png") -> str:
    """Return a file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture_url(image: Tensor | Image.Image) -> str:
    """Return a picture as an address that holds it as PNG."""
    return data_url(encode_png(image))


def widget(template: str, code: str, name: str, **props: Any) -> gr.HTML:
    """Return a component whose value is a dict: its template is fixed, its script draws the value.

    Args:
        template: the HTML.
        code: the script.
        name: what theme.css and tests know it by.
        props: what the script finds in `props`.
    """
    return gr.HTML(
        {},
        html_template=template,
        js_on_load=code,
        apply_default_css=False,
        elem_id=name,
        elem_classes=["widget", name.partition("-")[0]],
        **props,
    )


PICKING = """
<div class="tools">
  <button type="button" class="all">Whole face</button>
  <button type="button" class="none">Nothing</button>
  <label><input type="checkbox" class="apart"> left and right apart</label>
</div>
<div class="regions" role="group" aria-label="Regions to change"></div>
"""


def face_picker(label_set: LabelSet, name: str, role: str, pickable: bool) -> gr.HTML:
    """Return what shows a face; where it is `pickable`, its regions are chosen by click or by name.

    Its value is `face_value` from the server, {"regions": [...]} from the browser.
    """
    return widget(
        f"""
        <h3><span class="role">{role}</span> <span class="name"></span></h3>
        <div class="stage"><p class="empty">Choose a face below</p><img alt="" hidden><canvas></canvas></div>
        {PICKING if pickable else '<input type="checkbox" class="apart" hidden><div class="regions" hidden></div>'}
        """,
        script("labels", "face_picker"),
        name,
        regions=for_browser(label_set),
        pickable=pickable,
        role_name=role,
    )


def face_value(face: Face | None, regions: list[str] | None = None) -> dict[str, Any]:
    """Return the value of a face picker that shows a face with these regions chosen."""
    if face is None:
        return {"empty": True}
    return {
        "picture": picture_url(face.image),
        "labels": labels_to_text(face.labels),
        "name": face.name,
        "regions": regions or [],
    }


def compare() -> gr.HTML:
    """Return before and after with a slider between them, and the file.

    Its value is {"before", "after", "title", "file", "holds", "live", "fresh"}; `holds` says what the file carries.
    """
    return widget(
        """
        <p class="empty">The picture appears here. Choose regions on your face, then press <b>Make the picture</b>.</p>
        <div class="stage" hidden>
          <img class="after" alt=""><img class="before" alt="before"><span class="edge"></span>
          <span class="so-far" hidden>so far</span>
        </div>
        <label class="slide" hidden>before <input type="range" min="0" max="100" value="50"
          aria-label="How much of the picture before is shown"> after</label>
        <p class="title"></p>
        <a class="download" hidden>Download PNG</a>
        <p class="holds"></p>
        """,
        script("compare"),
        "compare",
    )


def film() -> gr.HTML:
    """Return the frames of a strip. Its value is {"frames", "gif", "webp", "name"}."""
    return widget(
        """
        <img class="frame" alt="">
        <label class="slide">own style <input type="range" min="0" max="1" step="1"
          aria-label="Frame of the strip"> other style</label>
        <div class="strip" role="group" aria-label="Frames"></div>
        <p><a class="download gif">Download GIF</a> <a class="download webp">Download WebP</a></p>
        """,
        script("film"),
        "film",
    )


def status() -> gr.HTML:
    """Return what says how far a job is, or what went wrong. Its value is {"text", "tone", "done", "total"}."""
    return widget(
        """
        <span class="text" aria-hidden="true"></span><span class="spoken" role="status" aria-live="polite"></span>
        <progress hidden aria-label="Steps"></progress>
        """,
        script("status"),
        "status",
    )
