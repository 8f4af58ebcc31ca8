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

from gradio.events import Dependency

class Widget(gr.HTML):
    """A component whose value is a dict; its template is fixed, its script draws the value."""

    def __init__(self, template: str, code: str, name: str, **props: Any) -> None:
        """Take the HTML, the script, and a name that theme.css and tests know it by."""
        super().__init__(
            {},
            html_template=template,
            js_on_load=code,
            apply_default_css=False,
            elem_id=name,
            elem_classes=["widget", name.partition("-")[0]],
            **props,
        )

    def api_info(self) -> dict[str, Any]:
        """Say what the value is."""
        return {"type": "object"}

    def preprocess(self, payload: Any) -> Any:
        """Return what the browser sent where it is a dict, else an empty one."""
        return payload if isinstance(payload, dict) else {}

    def get_block_name(self) -> str:
        """Return the component of Gradio's own that shows it."""
        return "html"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


class FacePicker(Widget):
    """A face; where it is `pickable`, its regions are chosen by click or by name.

    Value: {"picture", "labels", "name", "regions"} from the server, {"regions": [...]} from the browser.
    """

    def __init__(self, label_set: LabelSet, name: str, role: str, pickable: bool) -> None:
        """Take the regions, the element's name, and what the face is here ("Your face")."""
        picking = """
        <div class="tools">
          <button type="button" class="all">Whole face</button>
          <button type="button" class="none">Nothing</button>
          <label><input type="checkbox" class="apart"> left and right apart</label>
        </div>
        <div class="regions" role="group" aria-label="Regions to change"></div>"""
        super().__init__(
            f"""
        <h3><span class="role">{role}</span> <span class="name"></span></h3>
        <div class="stage"><p class="empty">Choose a face below</p><img alt="" hidden><canvas></canvas></div>
        {picking if pickable else '<input type="checkbox" class="apart" hidden><div class="regions" hidden></div>'}
        """,
            script("labels", "face_picker"),
            name,
            regions=for_browser(label_set),
            pickable=pickable,
            role_name=role,
        )

    @staticmethod
    def showing(face: Face | None, regions: list[str] | None = None) -> dict[str, Any]:
        """Return the value that shows a face."""
        if face is None:
            return {"empty": True}
        return {
            "picture": picture_url(face.image),
            "labels": labels_to_text(face.labels),
            "name": face.name,
            "regions": regions or [],
        }
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


class Compare(Widget):
    """Before and after, with a slider between them, and the file.

    Value: {"before", "after", "title", "file", "live", "fresh"}.
    """

    def __init__(self) -> None:
        super().__init__(
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
        """,
            script("compare"),
            "compare",
        )
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


class Film(Widget):
    """The frames of a strip. Value: {"frames", "gif", "webp", "name"}."""

    def __init__(self) -> None:
        super().__init__(
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
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


class Status(Widget):
    """How far a job is, or what went wrong. Value: {"text", "tone", "done", "total"}."""

    def __init__(self) -> None:
        super().__init__(
            """
        <span class="text" aria-hidden="true"></span><span class="spoken" role="status" aria-live="polite"></span>
        <progress hidden aria-label="Steps"></progress>
        """,
            script("status"),
            "status",
        )
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component