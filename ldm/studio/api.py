"""What programs may call (gradio_client): find faces, swap styles. By name alone; no file of theirs is opened."""

import base64
from typing import Any

import gradio as gr
from torch import Tensor

from ldm.data.images import encode_png
from ldm.pipeline.options import Preview, Progress
from ldm.pipeline.recipe import KEY
from ldm.studio.controls import MOST_STEPS
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
        if not 1 <= int(steps) <= MOST_STEPS:
            raise ValueError(f"steps is {steps}; wanted 1 .. {MOST_STEPS}")
        wanted = Wanted(
            face=self.shelf.face(source or self._first(), face),
            labels=self.shelf.face(source or self._first(), face).labels,
            parts=(Part(tuple(regions), self.shelf.face(source or self._first(), reference)),),
            no_style=False,
            lock=lock,
            how={"seed": int(seed), "steps": int(steps)},
            weights=self.models.kinds[0],
        )
        made: list[bytes] = []

        def work(progress: Progress, preview: Preview) -> list[Tensor]:
            pipe = self.models.get(wanted.weights)
            (recipe,) = wanted.recipes(pipe, self.models.checkpoint)
            image = recipe.make(pipe, progress)
            made.append(encode_png(image, {KEY: recipe.to_text(pipe)}))
            return [image]

        visitor = str(request.session_hash) if request is not None else "api"
        for report in self.jobs.run(visitor, work):
            if report.error is not None:
                raise report.error
        return {"png": base64.b64encode(made[0]).decode(), "regions": regions}

    def _first(self) -> str:
        return next(iter(self.shelf.sources))
