"""Custom components of the photo tab: the face selector and the color picker."""

import gradio as gr

from ldm.pipeline.region_color import parse_color
from ldm.studio.widgets import script, widget

# Common colors of hair and lips, then others: names and hex codes.
SWATCHES = {
    name: "#{:02x}{:02x}{:02x}".format(*parse_color(name))
    for name in (
        "black",
        "brown",
        "auburn",
        "copper",
        "blond",
        "silver",
        "crimson",
        "rose",
        "plum",
        "violet",
        "blue",
        "green",
    )
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

    Its value is `events.faces_value` from the server and {"face": index, "crop": null or [x, y, right, down]}
    from the browser.
    """
    return widget(FACES, script("photo_faces"), "photo-faces")


def color_choice(first: str) -> gr.HTML:
    """Build the color picker. Its value is {"color": "#rrggbb"}."""
    swatches = [{"name": name, "color": color} for name, color in SWATCHES.items()]
    return widget(COLOR, script("color"), "color", {"color": SWATCHES[first]}, swatches=swatches)
