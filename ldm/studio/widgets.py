"""Custom components: HTML and a script of static/ each, with a value that the server sets or reads."""

import base64
import json
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
    """Return the concatenated scripts of static/."""
    return "\n".join((STATIC / f"{name}.js").read_text() for name in names)


def data_url(data: bytes, kind: str = "image/png") -> str:
    """Return a file as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture_url(image: Tensor | Image.Image) -> str:
    """Return an image as a data URL of its PNG."""
    return data_url(encode_png(image))


def widget(template: str, code: str, name: str, value: dict[str, Any] | None = None, **fixed: Any) -> gr.HTML:
    """Build a component with a fixed template, whose script renders its value, a dict.

    Args:
        template: HTML.
        code: JavaScript.
        name: element id, used by tests; the part before the first hyphen is a class, used by theme.css.
        value: first value.
        fixed: constants of the script, as `fixed`. They are written into it, because Gradio drops the
            properties of a component that gets its value before it is first shown, as in a closed accordion.
    """
    return gr.HTML(
        value or {},
        html_template=template,
        js_on_load=f"const fixed = {json.dumps(fixed)};\n{code}",
        apply_default_css=False,
        elem_id=name,
        elem_classes=["widget", name.partition("-")[0]],
    )


PICKING = """
<div class="tools">
  <button type="button" class="all">All regions</button>
  <button type="button" class="none">Clear</button>
  <label><input type="checkbox" class="apart"> Separate left and right</label>
</div>
<div class="regions" role="group" aria-label="Regions to change"></div>
"""


def face_picker(label_set: LabelSet, name: str, role: str, pickable: bool) -> gr.HTML:
    """Build the display of a face; if `pickable`, regions are selected by click or name.

    Its value is `face_value` from the server and {"regions": [...]} from the browser.
    """
    return widget(
        f"""
        <h3><span class="role">{role}</span> <span class="name"></span></h3>
        <div class="stage"><p class="empty">No face yet</p><img alt="" hidden><canvas></canvas></div>
        {PICKING if pickable else '<input type="checkbox" class="apart" hidden><div class="regions" hidden></div>'}
        """,
        script("labels", "face_picker"),
        name,
        regions=for_browser(label_set),
        pickable=pickable,
        role_name=role,
    )


def face_value(face: Face | None, regions: list[str] | None = None) -> dict[str, Any]:
    """Return the value of a face picker for a face and selected regions."""
    if face is None:
        return {"empty": True}
    return {
        "picture": picture_url(face.image),
        "labels": labels_to_text(face.labels),
        "name": face.name,
        "regions": regions or [],
    }


def compare() -> gr.HTML:
    """Build the before/after comparison with a slider and a download.

    Its value is {"before", "after", "title", "file", "note", "live", "is_new"}; `note` describes the file.
    """
    return widget(
        """
        <p class="empty">The result appears here. Select regions on your face, then press <b>Generate</b>.</p>
        <div class="stage" hidden>
          <img class="after" alt=""><img class="before" alt="before"><span class="edge"></span>
          <span class="so-far" hidden>preview</span>
        </div>
        <label class="slide" hidden>before <input type="range" min="0" max="100" value="50"
          aria-label="Share of the source image"> after</label>
        <p class="title"></p>
        <a class="download" hidden>Download PNG</a>
        <p class="note"></p>
        """,
        script("compare"),
        "compare",
    )


def animation() -> gr.HTML:
    """Build the display of an interpolation. Its value is {"frames", "gif", "webp", "name"}."""
    return widget(
        """
        <img class="frame" alt="">
        <label class="slide">own style <input type="range" min="0" max="1" step="1"
          aria-label="Interpolation frame"> other style</label>
        <div class="strip" role="group" aria-label="Frames"></div>
        <p><a class="download gif">Download GIF</a> <a class="download webp">Download WebP</a></p>
        """,
        script("animation"),
        "animation",
    )


def status(name: str = "status") -> gr.HTML:
    """Build the display of progress and errors. Its value is {"text", "state", "done", "total"}."""
    return widget(
        """
        <span class="text" aria-hidden="true"></span><span class="spoken" role="status"
        aria-live="polite"></span> <progress hidden aria-label="Steps"></progress>
        """,
        script("status"),
        name,
    )
