"""API for programs (gradio_client): find faces and swap styles, by name only; no client file is opened."""

import base64
from typing import Any

import gradio as gr
from torch import Tensor

from ldm.data.images import encode_png
from ldm.pipeline.options import DEFAULT_STEPS, Preview, Progress
from ldm.pipeline.recipe import KEY
from ldm.studio.controls import MAX_STEPS
from ldm.studio.errors import with_user_errors
from ldm.studio.faces import FaceGallery
from ldm.studio.jobs import Jobs
from ldm.studio.models import Models
from ldm.studio.session import RegionEdit, SampleRequest

MAX_NAMES = 1000


class Api:
    """Functions listed by Gradio under "Use via API"."""

    def __init__(self, models: Models, gallery: FaceGallery, jobs: Jobs) -> None:
        self.models, self.gallery, self.jobs = models, gallery, jobs

    def add(self) -> None:
        """Register the functions on the page under construction."""
        gr.api(with_user_errors(self.faces), api_name="faces")
        gr.api(with_user_errors(self.swap), api_name="swap")

    def faces(self, source: str = "", search: str = "") -> list[str]:
        """Return up to 1,000 face names that match `search`; the first source by default."""
        return self.gallery.search(source or self._first(), search)[:MAX_NAMES]

    def swap(
        self,
        face: str,
        reference: str,
        regions: list[str],
        source: str = "",
        seed: int = 0,
        steps: int = DEFAULT_STEPS,
        lock: bool = True,
        request: gr.Request | None = None,
    ) -> dict[str, Any]:
        """Transfer the style of regions from `reference`; return {"png": base64 PNG with recipe, "regions"}."""
        if not 1 <= int(steps) <= MAX_STEPS:
            raise ValueError(f"steps must be in [1, {MAX_STEPS}], got {steps}")
        inputs = SampleRequest(
            face=self.gallery.face(source or self._first(), face),
            labels=self.gallery.face(source or self._first(), face).labels,
            parts=(RegionEdit(tuple(regions), self.gallery.face(source or self._first(), reference)),),
            random_face=False,
            lock=lock,
            options={"seed": int(seed), "steps": int(steps)},
            weights=self.models.kinds[0],
        )
        made: list[bytes] = []

        def work(progress: Progress, preview: Preview) -> list[Tensor]:
            pipe = self.models.get(inputs.weights)
            (recipe,) = inputs.recipes(pipe, self.models.checkpoint)
            image = recipe.make(pipe, progress)
            made.append(encode_png(image, {KEY: recipe.to_text(pipe)}))
            return [image]

        assert request is not None  # Gradio passes it
        for report in self.jobs.run_for(request, work):
            if report.error is not None:
                raise report.error
        return {"png": base64.b64encode(made[0]).decode(), "regions": regions}

    def _first(self) -> str:
        return next(iter(self.gallery.sources))
