"""Mask painter: a canvas of region indices over the image; its value is validated like a file."""

from typing import Any

import gradio as gr
import torch
from torch import Tensor

from ldm.data.faces import Face
from ldm.data.label_text import labels_from_text, labels_to_text
from ldm.data.labels import LabelSet
from ldm.studio.region_names import for_browser
from ldm.studio.widgets import picture_url, script, widget

PAINTED_AT = 512  # least side of the canvas
HTML = """
<div class="painter-body"><div class="stage">
  <img alt=""><canvas class="labels" tabindex="0" role="application"
    aria-label="Label map. Arrow keys move, space paints, [ and ] change the brush, Ctrl+Z undoes"></canvas>
  <span class="ring" hidden></span>
</div>
<div class="side">
  <div class="tools">
    <label><input type="radio" name="{name}-tool" value="brush" checked> Brush</label>
    <label><input type="radio" name="{name}-tool" value="fill"> Fill</label>
    <button type="button" class="undo" disabled>Undo</button>
    <button type="button" class="redo" disabled>Redo</button>
    <button type="button" class="reset" disabled>Reset</button>
  </div>
  <div class="tools">
    <label>Brush width <input type="range" class="width" min="1" max="64" value="12"></label>
    <label>Opacity <input type="range" class="opacity" min="0" max="100" value="60"></label>
  </div>
  <fieldset><legend>Paint with</legend><div class="palette-list"></div></fieldset>
  <p class="says" role="status" aria-live="polite"></p>
</div></div>
"""


def mask_painter(label_set: LabelSet, name: str = "painter") -> gr.HTML:
    """Build the label map painter. The canvas renders an array of region indices, so colors never blend.

    Its value is `painter_value` from the server and {"labels": text} from the browser.
    """
    html = HTML.replace("{name}", name)  # radio buttons of one name exclude each other on the whole page
    return widget(html, script("labels", "mask_painter"), name, regions=for_browser(label_set), group=name)


def painter_value(face: Face, labels: Tensor | None = None) -> dict[str, Any]:
    """Return the painter's value for a face, with its own or another mask, at a size where an eye can be painted."""
    return {
        "photo": picture_url(face.image),
        "labels": labels_to_text(enlarged(face.labels if labels is None else labels)),
    }


def painted(value: Any, face: Face, label_set: LabelSet) -> Tensor:
    """Return the painted mask (H, W), or the face's own if the painter was not used.

    Raises:
        LabelTextError: wrong size or unknown regions.
    """
    text = value.get("labels") if isinstance(value, dict) else None
    if text is None:
        return face.labels
    factor = enlargement(face.labels)
    H, W = face.labels.shape
    return reduced(labels_from_text(text, label_set, (factor * H, factor * W)), factor)


def enlargement(labels: Tensor) -> int:
    """Return the factor by which the painter enlarges a label map."""
    return max(1, -(-PAINTED_AT // min(labels.shape)))


def enlarged(labels: Tensor) -> Tensor:
    """Return a label map (H, W) with its pixels repeated until its shorter side has PAINTED_AT pixels."""
    factor = enlargement(labels)
    return labels.repeat_interleave(factor, 0).repeat_interleave(factor, 1)


def reduced(labels: Tensor, factor: int) -> Tensor:
    """Return the most frequent label of each block of an enlarged label map, uint8."""
    H, W = labels.shape[0] // factor, labels.shape[1] // factor
    blocks = labels.view(H, factor, W, factor).permute(0, 2, 1, 3).reshape(H, W, factor**2)
    return blocks.mode(-1).values.to(torch.uint8)
