"""Custom components of the photo tab: the face selector and the color picker."""

import gradio as gr

from ldm.studio.widgets import script, widget

# Common colors of hair and lips, then others.
SWATCHES = {
    "black": "#1f1a17",
    "brown": "#5a3825",
    "auburn": "#7a3b2e",
    "copper": "#b35a2d",
    "blond": "#c9a26b",
    "silver": "#b9bcc0",
    "crimson": "#b0162f",
    "rose": "#c9657b",
    "plum": "#8e2f5c",
    "violet": "#6a4ba3",
    "blue": "#2f5fa8",
    "green": "#3f7d4e",
}

FACES = """
<h3><span class="role">Photo</span> <span class="name"></span></h3>
<div class="photo">
  <p class="empty">Upload a photo above</p>
  <img alt="" hidden><svg aria-hidden="true"></svg><div class="marks" role="group" aria-label="Faces found"></div>
</div>
<div class="tools" hidden>
  <label><input type="checkbox" class="adjust"> Adjust the crop</label>
  <span class="hint" hidden>Drag the square, or a corner to rotate and resize it. Keys: arrows, + and -, [ and ].</span>
</div>
"""
COLOR = """
<div class="swatches" role="group" aria-label="Colors"></div>
<label class="own">Own color <input type="color" aria-label="Own color"></label>
<span class="code"></span>
"""


def photo_faces() -> gr.HTML:
    """Build the face selector: the photo with its numbered faces.

    Its value is `events.faces_value` from the server and {"face": index, "crop": null or [x, y, right, down]} from
    the browser.
    """
    return widget(FACES, script("photo_faces"), "photo-faces")


def color_choice(first: str) -> gr.HTML:
    """Build the color picker. Its value is {"color": "#rrggbb"}."""
    swatches = [{"name": name, "color": color} for name, color in SWATCHES.items()]
    return widget(COLOR, script("color"), "color", {"color": SWATCHES[first]}, swatches=swatches)
