"""The mask painter: a canvas of region numbers over the photo. What it sends is checked as strictly as a file."""

from typing import Any

from torch import Tensor

from ldm.data.faces import Face
from ldm.data.label_text import labels_from_text, labels_to_text
from ldm.data.labels import LabelSet
from ldm.studio.region_names import for_browser
from ldm.studio.widgets import Widget, picture_url, script

HTML = """
<div class="stage">
  <img alt=""><canvas class="labels" tabindex="0" role="application"
    aria-label="Mask. Arrow keys move, with shift faster; space paints; [ and ] change the brush; control Z undoes."></canvas>
  <span class="ring" hidden></span>
</div>
<div class="side">
  <div class="tools">
    <label><input type="radio" name="tool" value="brush" checked> Brush</label>
    <label><input type="radio" name="tool" value="fill"> Fill</label>
    <button type="button" class="undo" disabled>Undo</button>
    <button type="button" class="redo" disabled>Redo</button>
    <button type="button" class="reset" disabled>Start again</button>
  </div>
  <div class="tools">
    <label>Brush width <input type="range" class="width" min="1" max="24" value="4"></label>
    <label>Opacity <input type="range" class="opacity" min="0" max="100" value="60"></label>
  </div>
  <fieldset><legend>Paint with</legend><div class="palette-list"></div></fieldset>
  <p class="says" role="status" aria-live="polite"></p>
</div>
"""

from gradio.events import Dependency

class MaskPainter(Widget):
    """Paints label maps; no colour is ever mixed, for the canvas only shows what an array of numbers holds.

    Value: {"photo", "labels"} from the server, {"labels": text} from the browser.
    """

    def __init__(self, label_set: LabelSet) -> None:
        super().__init__(
            HTML, script("labels", "mask_painter"), "painter", regions=for_browser(label_set)
        )

    @staticmethod
    def showing(face: Face, labels: Tensor | None = None) -> dict[str, Any]:
        """Return the value that shows a face with its mask, or with another one."""
        return {
            "photo": picture_url(face.image),
            "labels": labels_to_text(face.labels if labels is None else labels),
        }
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def painted(value: Any, face: Face, label_set: LabelSet) -> Tensor:
    """Return the mask (H, W) that the painter holds; the face's own where it was never opened.

    Raises:
        LabelTextError: it is not a mask of the face's size and the model's regions.
    """
    text = value.get("labels") if isinstance(value, dict) else None
    if text is None:
        return face.labels
    size = face.labels.shape[0], face.labels.shape[1]
    return labels_from_text(text, label_set, size)