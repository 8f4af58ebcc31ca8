"""Events of making: pictures, strips, Cancel, history, recipes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from torch import Tensor

from ldm.data.faces import Face
from ldm.data.images import encode_png
from ldm.parsing.alignment import as_bytes
from ldm.pipeline import FacePipeline, Recipe
from ldm.pipeline.options import Preview, Progress
from ldm.pipeline.recipe import KEY, recipe_text, said_in
from ldm.studio.controls import Settings
from ldm.studio.jobs import Jobs, Report
from ldm.studio.mask_painter import painted, painter_value
from ldm.studio.models import Models
from ldm.studio.session import Part, Result, Session, Wanted
from ldm.studio.shown import Shown, busy, compare_value, failed, film_value, history, listed
from ldm.studio.uploads import checked
from ldm.studio.widgets import face_value

REFERENCE, CHANCE, NOTHING = "the reference", "chance", "no style at all"
STYLES = (REFERENCE, CHANCE, NOTHING)
MOST_FRAMES = 25


@dataclass(frozen=True)
class Choice:
    """What the page says besides the controls, as the browser sent it."""

    picker: dict[str, Any]
    style: str
    amount: float
    painter: dict[str, Any]

    def regions(self, pipe: FacePipeline) -> list[str]:
        """Return the chosen regions; ValueError for one that the model does not know."""
        regions = self.picker.get("regions") if isinstance(self.picker, dict) else None
        pipe.label_set.indices(regions or [])
        return list(regions or [])


class MakeEvents:
    """What happens when a visitor makes pictures."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    # --- what shall change ---

    def add_part(
        self, session: Session, picker: dict[str, Any], style: str, amount: float
    ) -> tuple[str, dict[str, Any]]:
        """List the chosen regions, and clear the choice for the next ones."""
        made = Choice(picker, style, amount, {})
        regions = made.regions(self.models.pipe)
        if not regions:
            raise ValueError("choose regions on your face first")
        session.parts = session.with_selection(regions, made.style == CHANCE, float(made.amount) / 100)
        return listed(session), face_value(session.face)

    def clear_parts(self, session: Session) -> str:
        """Forget the list."""
        session.parts = ()
        return listed(session)

    # --- making ---

    def make(self, session: Session, request: gr.Request, *values: Any) -> Iterator[Shown]:
        """Make pictures; `values` are those of `Choice`, then the controls'."""
        yield from self._shown(session, request, values, frames=0)

    def make_strip(self, session: Session, request: gr.Request, frames: int, *values: Any) -> Iterator[Shown]:
        """Make the frames from the face's own style to the chosen one."""
        if not 2 <= int(frames) <= MOST_FRAMES:
            yield failed(ValueError(f"wanted 2 .. {MOST_FRAMES} frames"))
            return
        yield from self._shown(session, request, values, frames=int(frames))

    def cancel(self, request: gr.Request) -> None:
        """Stop within a step."""
        self.jobs.line.cancel(str(request.session_hash))

    def load_recipe(self, session: Session, request: gr.Request, file: bytes | None) -> Iterator[Shown]:
        """Make the picture of a recipe again, with the weights that it names where there are such."""
        try:
            text = recipe_text(checked(file, "the file"))
        except Exception as error:
            yield failed(error)
            return
        kind = said_in(text).get("weights")
        weights = kind if kind in self.models.kinds else None
        yield from self._run(session, request, lambda pipe: [Recipe.from_text(text, pipe)], weights=weights)

    def _shown(
        self, session: Session, request: gr.Request, values: tuple[Any, ...], frames: int
    ) -> Iterator[Shown]:
        try:
            settings = Settings.read(*values[4:])
            wanted = self._wanted(session, Choice(*values[:4]), settings, frames)
        except Exception as error:
            yield failed(error)
            return
        checkpoint = self.models.checkpoint
        yield from self._run(
            session,
            request,
            lambda pipe: wanted.recipes(pipe, checkpoint),
            before=wanted.face.image,
            seed=settings.seed,
            frames=frames,
            weights=settings.weights,
        )

    def _wanted(self, session: Session, choice: Choice, settings: Settings, frames: int) -> Wanted:
        pipe = self.models.pipe
        if session.face is None:
            raise ValueError("choose a face first")
        nothing = choice.style == NOTHING
        parts: tuple[Part, ...] = ()
        if not nothing:
            amount = float(choice.amount) / 100
            parts = session.with_selection(choice.regions(pipe), choice.style == CHANCE, amount)
        wanted = Wanted(
            face=session.face,
            labels=painted(choice.painter, session.face, pipe.label_set),
            parts=parts,
            no_style=nothing,
            lock=settings.lock and not nothing,
            how=settings.how(),
            variants=settings.variants,
            frames=frames,
            weights=settings.weights,
        )
        wanted.check()
        return wanted

    def _run(
        self,
        session: Session,
        request: gr.Request,
        recipes: Callable[[FacePipeline], list[Recipe]],
        before: Tensor | None = None,
        seed: int | None = None,
        frames: int = 0,
        weights: str | None = None,
    ) -> Iterator[Shown]:
        """Make recipes, show how far they are, then what was made."""
        made: list[Result] = []

        def work(progress: Progress, preview: Preview) -> list[Tensor]:
            pipe = self.models.get(self.models.kinds[0] if weights is None else weights)
            wanted = recipes(pipe)
            for number, recipe in enumerate(wanted):
                image = recipe.make(pipe, _of(progress, number, len(wanted)), preview)
                png = encode_png(image, {KEY: recipe.to_text(pipe)})
                made.append(Result(image, recipe.photo if before is None else before, png, recipe))
            return [result.image for result in made]

        last = Report()
        try:
            for report in self.jobs.run(str(request.session_hash), work):
                if report.error is not None:
                    _remember(session, [] if frames else made)  # what is finished is not lost with the rest
                    yield failed(report.error, last, session, 0 if frames else len(made))
                elif report.made is None:
                    last = report
                    yield busy(report, before, seed)
        except Exception as error:  # the line is full
            yield failed(error)
            return
        if report.made is not None:
            _remember(session, made[-1:] if frames else made)
            yield self._finished(session, made, frames)

    def _finished(self, session: Session, made: list[Result], frames: int) -> Shown:
        film = gr.skip() if not frames else film_value([result.image for result in made], made[-1].recipe)
        said = (
            f"{frames} frames made" if frames else "Done" if len(made) == 1 else f"{len(made)} pictures made"
        )
        compare = compare_value(session.shown, fresh=True)
        seed = made[0].recipe.how.get("seed", 0)
        return {"text": said, "tone": "done"}, compare, history(session), film, seed

    # --- results ---

    def recall(self, session: Session) -> tuple[Any, ...]:
        """Set the controls as the picture that is shown says: seed kept, steps, solver, guidance."""
        if session.shown is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        how = session.shown.recipe.how
        return True, how.get("steps", 20), how.get("solver", "dpmpp_2m"), how.get("guidance", 1.0)

    def show(self, session: Session, chosen: gr.SelectData) -> dict[str, Any]:
        """Show a picture of the history."""
        place = int(chosen.index)
        if not 0 <= place < len(session.results):
            raise ValueError("that picture is forgotten by now")
        session.shown = session.results[place]
        return compare_value(session.shown, fresh=True)

    def go_on(self, session: Session, picker: dict[str, Any]) -> tuple[Any, Any]:
        """Take the picture that is shown as the face to change."""
        if session.shown is None:
            raise ValueError("make a picture first")
        result = session.shown
        session.face = Face("your picture", as_bytes(result.image), result.recipe.labels)
        regions = [region for region in picker.get("regions") or [] if isinstance(region, str)]
        return face_value(session.face, regions), painter_value(session.face)


def _of(progress: Progress, number: int, count: int) -> Progress:
    """Return the progress of one picture of several."""
    return lambda done, total: progress(number * total + done, count * total)


def _remember(session: Session, made: list[Result]) -> None:
    """Put pictures into the history, the first of them on top."""
    for result in reversed(made):
        session.remember(result)
