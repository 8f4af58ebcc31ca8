"""What programs may call (gradio_client): find faces, swap styles. By name alone; no file of theirs is opened."""

import base64
from typing import Any

import gradio as gr
from torch import Tensor

from ldm.data.images import encode_png
from ldm.pipeline import Recipe
from ldm.pipeline.options import Preview, Progress
from ldm.pipeline.recipe import KEY
from ldm.studio.faces import Shelf
from ldm.studio.jobs import Jobs
from ldm.studio.models import Models
from ldm.studio.plainly import plainly
from ldm.studio.session import Part, Wanted

MOST_NAMES = 1000


class Api:
    """The functions that Gradio shows under "Use via API"."""

    def __init__(self, models: Models, shelf: Shelf, jobs: Jobs) -> None:
        self.models, self.shelf, self.jobs = models, shelf, jobs

    def add(self) -> None:
        """Add them to the page that is being built."""
        gr.api(plainly(self.faces), api_name="faces")
        gr.api(plainly(self.swap), api_name="swap")

    def faces(self, source: str = "", search: str = "") -> list[str]:
        """Return the names of faces, at most 1,000 of them; without a source those that the page shows first."""
        return self.shelf.search(source or self._first(), search)[:MOST_NAMES]

    def swap(
        self,
        face: str,
        reference: str,
        regions: list[str],
        source: str = "",
        seed: int = 0,
        steps: int = 20,
        lock: bool = True,
        request: gr.Request | None = None,
    ) -> dict[str, Any]:
        """Return {"png": a face with regions in the style of another, in base64, with its recipe; "regions"}."""
        wanted = Wanted(
            face=self.shelf.face(source or self._first(), face),
            labels=self.shelf.face(source or self._first(), face).labels,
            parts=(Part(tuple(regions), self.shelf.face(source or self._first(), reference)),),
            no_style=False,
            lock=lock,
            how={"seed": int(seed), "steps": int(steps)},
            weights=self.models.kinds[0],
        )
        made: list[Recipe] = []

        def work(progress: Progress, preview: Preview) -> list[Tensor]:
            made.extend(wanted.recipes(self.models.pipe, self.models.checkpoint))
            return [made[0].make(self.models.pipe, progress)]

        visitor = str(request.session_hash) if request is not None else "api"
        for report in self.jobs.run(visitor, work):
            if report.error is not None:
                raise report.error
        assert report.made is not None
        png = encode_png(report.made[0], {KEY: made[0].to_text(self.models.pipe)})
        return {"png": base64.b64encode(png).decode(), "regions": regions}

    def _first(self) -> str:
        return next(iter(self.shelf.sources))
