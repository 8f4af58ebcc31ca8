"""Mask painter: a canvas of region indices over the image; its value is validated like a file."""

from typing import Any

import gradio as gr
from torch import Tensor

from ldm.data.faces import Face
from ldm.data.label_text import labels_from_text, labels_to_text
from ldm.data.labels import LabelSet
from ldm.studio.region_names import for_browser
from ldm.studio.widgets import picture_url, script, widget

HTML = """
<div class="painter-body"><div class="stage">
  <img alt=""><canvas class="labels" tabindex="0" role="application"
    aria-label="Mask. Arrow keys move, space paints, [ and ] change the brush, control Z undoes"></canvas>
  <span class="ring" hidden></span>
</div>
<div class="side">
  <div class="tools">
    <label><input type="radio" name="tool" value="brush" checked> Brush</label>
    <label><input type="radio" name="tool" value="fill"> Fill</label>
    <button type="button" class="undo" disabled>Undo</button>
    <button type="button" class="redo" disabled>Redo</button>
    <button type="button" class="reset" disabled>Reset</button>
  </div>
  <div class="tools">
    <label>Brush width <input type="range" class="width" min="1" max="24" value="4"></label>
    <label>Opacity <input type="range" class="opacity" min="0" max="100" value="60"></label>
  </div>
  <fieldset><legend>Paint with</legend><div class="palette-list"></div></fieldset>
  <p class="says" role="status" aria-live="polite"></p>
</div></div>
"""


def mask_painter(label_set: LabelSet) -> gr.HTML:
    """Build the label map painter. The canvas renders an array of region indices, so colours never blend.

    Its value is `painter_value` from the server and {"labels": text} from the browser.
    """
    return widget(HTML, script("labels", "mask_painter"), "painter", regions=for_browser(label_set))


def painter_value(face: Face, labels: Tensor | None = None) -> dict[str, Any]:
    """Return the painter's value for a face, with its own or another mask."""
    return {
        "photo": picture_url(face.image),
        "labels": labels_to_text(face.labels if labels is None else labels),
    }


def painted(value: Any, face: Face, label_set: LabelSet) -> Tensor:
    """Return the painted mask (H, W), or the face's own if the painter was not used.

    Raises:
        LabelTextError: wrong size or unknown regions.
    """
    text = value.get("labels") if isinstance(value, dict) else None
    if text is None:
        return face.labels
    size = face.labels.shape[0], face.labels.shape[1]
    return labels_from_text(text, label_set, size)
