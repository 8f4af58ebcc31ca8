"""Sampling events: images, interpolations, cancellation, history, recipes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from torch import Tensor

from ldm.data.faces import Face
from ldm.data.images import encode_png
from ldm.parsing.alignment import quantize_8bit
from ldm.pipeline import FacePipeline, Recipe, RecipeError
from ldm.pipeline.options import DEFAULT_STEPS, Preview, Progress
from ldm.pipeline.recipe import KEY, description_in, recipe_text
from ldm.studio.controls import Settings
from ldm.studio.jobs import Jobs, Report
from ldm.studio.mask_painter import painted, painter_value
from ldm.studio.models import Models
from ldm.studio.session import RegionEdit, Result, SampleRequest, Session
from ldm.studio.text import is_unicode
from ldm.studio.uploads import checked
from ldm.studio.views import View, animation_value, busy, compare_value, failed, history, listed
from ldm.studio.visitors import Visitors
from ldm.studio.widgets import face_value

REFERENCE, RANDOM, NO_STYLE = "Reference", "Random", "Random face"
STYLES = (REFERENCE, RANDOM, NO_STYLE)
MAX_FRAMES = 25


@dataclass(frozen=True)
class Choice:
    """Unvalidated inputs from the browser other than the controls."""

    picker: dict[str, Any]
    style: str
    amount: float
    painter: dict[str, Any]

    def regions(self, pipe: FacePipeline) -> list[str]:
        """Return the selected regions; raise ValueError for an unknown one."""
        regions = self.picker.get("regions") if isinstance(self.picker, dict) else None
        pipe.label_set.indices(regions or [])
        return list(regions or [])


class SamplingEvents:
    """Event handlers for sampling images."""

    def __init__(self, visitors: Visitors, models: Models, jobs: Jobs) -> None:
        self.visitors, self.models, self.jobs = visitors, models, jobs

    # --- edits ---

    def add_part(
        self, request: gr.Request, picker: dict[str, Any], style: str, amount: float
    ) -> tuple[str, dict[str, Any]]:
        """Add the selected regions to the list of edits and clear the selection."""
        session = self.visitors.of(request)
        made = Choice(picker, style, amount, {})
        regions = made.regions(self.models.pipe)
        if not regions:
            raise ValueError("select regions on your face first")
        session.parts = session.with_selection(regions, made.style == RANDOM, float(made.amount) / 100)
        return listed(session), face_value(session.face)

    def clear_parts(self, request: gr.Request) -> str:
        """Clear the list of edits."""
        session = self.visitors.of(request)
        session.parts = ()
        return listed(session)

    # --- sampling ---

    def make(self, request: gr.Request, *values: Any) -> Iterator[View]:
        """Sample images; `values` are those of `Choice`, followed by the controls."""
        yield from self._sample(request, values, frames=0)

    def sample_interpolation(self, request: gr.Request, frames: int, *values: Any) -> Iterator[View]:
        """Sample an interpolation from the face's own style to the selected one."""
        if not 2 <= int(frames) <= MAX_FRAMES:
            yield failed(ValueError(f"frames must be in [2, {MAX_FRAMES}], got {frames}"))
            return
        yield from self._sample(request, values, frames=int(frames))

    def cancel(self, request: gr.Request) -> None:
        """Cancel the job within one step."""
        self.jobs.queue.cancel(str(request.session_hash))

    def load_recipe(self, request: gr.Request, file: bytes | None) -> Iterator[View]:
        """Reproduce the image of a recipe, with the weights it names if available."""
        try:
            session = self.visitors.of(request)
            text = recipe_text(checked(file, "the file"))
            if not is_unicode(description_in(text)):
                raise RecipeError("the recipe contains text that is not valid Unicode")
        except Exception as error:
            yield failed(error)
            return
        kind = description_in(text).get("weights")
        weights = kind if kind in self.models.kinds else None
        yield from self._run(session, request, lambda pipe: [Recipe.from_text(text, pipe)], weights=weights)

    def _sample(self, request: gr.Request, values: tuple[Any, ...], frames: int) -> Iterator[View]:
        try:
            session = self.visitors.of(request)
            settings = Settings.read(*values[4:])
            inputs = self._inputs(session, Choice(*values[:4]), settings, frames)
        except Exception as error:
            yield failed(error)
            return
        checkpoint = self.models.checkpoint
        yield from self._run(
            session,
            request,
            lambda pipe: inputs.recipes(pipe, checkpoint),
            before=inputs.face.image,
            seed=settings.seed,
            frames=frames,
            weights=settings.weights,
        )

    def _inputs(self, session: Session, choice: Choice, settings: Settings, frames: int) -> SampleRequest:
        pipe = self.models.pipe
        if session.face is None:
            raise ValueError("select a face first")
        random_face = choice.style == NO_STYLE
        parts: tuple[RegionEdit, ...] = ()
        if not random_face:
            amount = float(choice.amount) / 100
            parts = session.with_selection(choice.regions(pipe), choice.style == RANDOM, amount)
        inputs = SampleRequest(
            face=session.face,
            labels=painted(choice.painter, session.face, pipe.label_set),
            parts=parts,
            random_face=random_face,
            lock=settings.lock and not random_face,
            options=settings.options(),
            variants=settings.variants,
            frames=frames,
            weights=settings.weights,
        )
        inputs.check()
        return inputs

    def _run(
        self,
        session: Session,
        request: gr.Request,
        recipes: Callable[[FacePipeline], list[Recipe]],
        before: Tensor | None = None,
        seed: int | None = None,
        frames: int = 0,
        weights: str | None = None,
    ) -> Iterator[View]:
        """Sample recipes; yield progress, then the results."""
        made: list[Result] = []
        differences: list[str | None] = []

        def work(progress: Progress, preview: Preview) -> list[Tensor]:
            pipe = self.models.get(self.models.kinds[0] if weights is None else weights)
            planned = recipes(pipe)
            for number, recipe in enumerate(planned):
                image = recipe.make(pipe, _image_progress(progress, number, len(planned)), preview)
                png = encode_png(image, {KEY: recipe.to_text(pipe)})
                differences.append(recipe.precision_difference(pipe))
                made.append(Result(image, recipe.photo if before is None else before, png, recipe))
            return [result.image for result in made]

        last = Report()
        try:
            for report in self.jobs.run_for(request, work):
                if report.error is not None:
                    self._remember(session, [] if frames else made)  # keep finished images
                    yield failed(report.error, last, session, 0 if frames else len(made))
                elif report.made is None:
                    last = report
                    yield busy(report, before, seed)
        except Exception as error:  # the queue is full
            yield failed(error)
            return
        if report.made is not None:
            self._remember(session, made[-1:] if frames else made)
            yield self._finished(session, made, frames, differences[0])

    def _finished(self, session: Session, made: list[Result], frames: int, difference: str | None) -> View:
        animation = (
            gr.skip() if not frames else animation_value([result.image for result in made], made[-1].recipe)
        )
        if frames:
            text = f"Sampled {frames} frames"
        elif len(made) > 1:
            text = f"Sampled {len(made)} images"
        else:
            text = f"Done; {difference}" if difference else "Done"
        compare = compare_value(session.shown, is_new=True)
        seed = made[0].recipe.options.get("seed", 0)
        return {"text": text, "state": "done"}, compare, history(session), animation, seed

    def _remember(self, session: Session, made: list[Result]) -> None:
        """Add images to the history, the first one on top."""
        for result in reversed(made):
            session.remember(result)
        self.visitors.trim()

    # --- results ---

    def recall(self, request: gr.Request) -> tuple[Any, ...]:
        """Set the controls to the recipe of the displayed image: locked seed, steps, solver, guidance."""
        session = self.visitors.of(request)
        if session.shown is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        options = session.shown.recipe.options
        return (
            True,
            options.get("steps", DEFAULT_STEPS),
            options.get("solver", "dpmpp_2m"),
            options.get("guidance", 1.0),
        )

    def show(self, request: gr.Request, chosen: gr.SelectData) -> dict[str, Any]:
        """Display an image of the history."""
        session = self.visitors.of(request)
        index = int(chosen.index)
        if not 0 <= index < len(session.results):
            raise ValueError("that image is no longer in the history")
        session.shown = session.results[index]
        return compare_value(session.shown, is_new=True)

    def continue_editing(self, request: gr.Request, picker: dict[str, Any]) -> tuple[Any, Any]:
        """Set the displayed image as the face to edit."""
        session = self.visitors.of(request)
        if session.shown is None:
            raise ValueError("generate an image first")
        result = session.shown
        session.face = Face("your image", quantize_8bit(result.image), result.recipe.labels)
        regions = [region for region in picker.get("regions") or [] if isinstance(region, str)]
        return face_value(session.face, regions), painter_value(session.face)


def _image_progress(progress: Progress, number: int, count: int) -> Progress:
    """Return the progress callback of one image of several."""
    return lambda done, total: progress(number * total + done, count * total)
