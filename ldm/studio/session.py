"""What one visitor has: faces, the parts to change, and the pictures of this visit."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ldm.data.faces import Face
from ldm.pipeline import FacePipeline, Recipe, StyleCode
from ldm.pipeline.options import SamplingOptions
from ldm.studio.region_names import readable

REMEMBERED = 24  # pictures of a visit; older ones are forgotten


@dataclass(frozen=True)
class Part:
    """Regions that shall look otherwise.

    Attributes:
        regions: their names.
        source: the face whose style they take; None leaves it to chance.
        amount: how far from the face's own style, 0..1 and beyond.
    """

    regions: tuple[str, ...]
    source: Face | None
    amount: float = 1.0

    def in_words(self) -> str:
        """Say it on the page."""
        whose = "by chance" if self.source is None else f"like {self.source.name}"
        share = "" if self.amount == 1 else f", {self.amount:.0%} of the way"
        return f"{', '.join(map(readable, self.regions))} {whose}{share}"


@dataclass(frozen=True)
class Wanted:
    """One click on "make": everything it depends on.

    Attributes:
        face: the face to change.
        labels: (H, W), its shapes, painted perhaps.
        parts: what shall look otherwise; later ones win.
        no_style: leave the whole look to chance.
        lock: keep the photo's pixels elsewhere.
        how: how to sample; the seed is the first one.
        variants: pictures, each with the next seed.
        frames: of a strip from the face's own style; 0 for no strip.
        weights: of the network.
    """

    face: Face
    labels: Tensor
    parts: tuple[Part, ...]
    no_style: bool
    lock: bool
    how: SamplingOptions
    variants: int = 1
    frames: int = 0
    weights: str = "ema"

    def check(self) -> None:
        """Raise ValueError where nothing would change."""
        repainted = bool((self.labels != self.face.labels).any())
        if not self.parts and not self.no_style and (self.frames or (self.lock and not repainted)):
            raise ValueError(
                "nothing would change: choose regions and where their style comes from"
                + ("" if self.frames else ", or paint the mask")
            )

    def recipes(self, pipe: FacePipeline, checkpoint: str) -> list[Recipe]:
        """Return what is to be made, in order: variants, or the frames of a strip."""
        own = pipe.read_style(self.face.image, self.face.labels)
        sources = [
            pipe.random_style(self.labels)
            if part.source is None
            else pipe.read_style(part.source.image, part.source.labels)
            for part in self.parts
        ]
        shares = [frame / (self.frames - 1) for frame in range(self.frames)] if self.frames else [1.0]
        recipes = []
        for share in shares:
            style = pipe.random_style(self.labels) if self.no_style else own
            for part, source in zip(self.parts, sources, strict=True):
                style = style.lerp(source, share * part.amount, part.regions)
            recipes.append(self._recipe(pipe, style, checkpoint, share))
        if self.frames:
            return recipes
        first = self.how.get("seed", 0)
        assert isinstance(first, int)
        return [recipes[0].with_seed(first + number) for number in range(self.variants)]

    def _recipe(self, pipe: FacePipeline, style: StyleCode, checkpoint: str, share: float) -> Recipe:
        changed = tuple(dict.fromkeys(region for part in self.parts for region in part.regions))
        said = {
            "checkpoint": checkpoint,
            "weights": self.weights,
            "face": self.face.name,
            "parts": [part.in_words() for part in self.parts] or (["no style"] if self.no_style else []),
            "share": share,
        }
        return Recipe(
            style=style,
            labels=self.labels,
            how=self.how,
            photo=self.face.image if self.lock else None,
            photo_labels=self.face.labels if self.lock else None,
            regions=pipe.label_set.regions if self.no_style else changed,
            said=said,
        )


@dataclass(frozen=True)
class Result:
    """A picture that was made.

    Attributes:
        image: (3, H, W) in [-1, 1], on the CPU.
        before: the photo it began with, if there was one.
        png: the file, with its recipe.
        recipe: what it was made from.
    """

    image: Tensor
    before: Tensor | None
    png: bytes
    recipe: Recipe

    @property
    def title(self) -> str:
        """What history calls it."""
        said = self.recipe.said.get("parts")  # a loaded recipe may say anything
        parts = [str(part)[:200] for part in said] if isinstance(said, list) else []
        return f"{'; '.join(parts) or 'reshaped'} · seed {self.recipe.how.get('seed', 0)}"


@dataclass
class Session:
    """What a visitor has chosen and made so far; changed in place."""

    face: Face | None = None
    reference: Face | None = None
    parts: tuple[Part, ...] = ()
    results: list[Result] = field(default_factory=list)
    shown: Result | None = None

    def remember(self, result: Result) -> None:
        """Add a picture to the history, newest first, and show it."""
        self.shown = result
        self.results.insert(0, result)
        del self.results[REMEMBERED:]

    def with_selection(self, regions: Sequence[str], chance: bool, amount: float) -> tuple[Part, ...]:
        """Return the parts that are listed, and the one that is being chosen.

        Raises:
            ValueError: regions without a face to take their style from.
        """
        if not regions:
            return self.parts
        if not chance and self.reference is None:
            raise ValueError("choose a reference face first, or leave the style to chance")
        return (*self.parts, Part(tuple(regions), None if chance else self.reference, amount))

    def use(self, face: Face, as_reference: bool) -> None:
        """Take a face as the reference, or as the one to change."""
        if as_reference:
            self.reference = face
        else:
            self.face = face
