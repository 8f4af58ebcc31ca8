"""State of one visitor: faces, edits and results."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ldm.data.faces import Face
from ldm.pipeline import FacePipeline, Recipe, StyleCode
from ldm.pipeline.options import SamplingOptions
from ldm.studio.photos.opened import OpenedPhoto
from ldm.studio.region_names import readable

MAX_HISTORY = 24  # images


@dataclass(frozen=True)
class RegionEdit:
    """Edit of the style of some regions.

    Attributes:
        regions: region names.
        source: face that provides the style; None for a random style.
        amount: interpolation weight from the face's own style; above 1 extrapolates.
    """

    regions: tuple[str, ...]
    source: Face | None
    amount: float = 1.0

    def summary(self) -> str:
        """Describe the edit on the page."""
        source = "random" if self.source is None else f"like {self.source.name}"
        share = "" if self.amount == 1 else f", strength {self.amount:.0%}"
        return f"{', '.join(map(readable, self.regions))} {source}{share}"


@dataclass(frozen=True)
class SampleRequest:
    """All inputs of one click on "Generate".

    Attributes:
        face: face to edit.
        labels: its label map (H, W), possibly painted.
        parts: edits; later ones override earlier ones.
        random_face: sample a random style for all regions.
        lock: keep the pixels outside the edited regions.
        options: sampling options; the seed is that of the first variant.
        variants: number of images, with consecutive seeds.
        frames: number of frames of an interpolation; 0 for single images.
        weights: kind of network weights.
    """

    face: Face
    labels: Tensor
    parts: tuple[RegionEdit, ...]
    random_face: bool
    lock: bool
    options: SamplingOptions
    variants: int = 1
    frames: int = 0
    weights: str = "ema"

    def check(self) -> None:
        """Raise ValueError if nothing would change."""
        repainted = bool((self.labels != self.face.labels).any())
        if not self.parts and not self.random_face and (self.frames or (self.lock and not repainted)):
            raise ValueError(
                "nothing would change: select regions and a style source"
                + ("" if self.frames else ", or edit the label map")
            )

    def recipes(self, pipe: FacePipeline, checkpoint: str) -> list[Recipe]:
        """Return the recipes in order: variants, or the frames of an interpolation."""
        own = pipe.read_style(self.face.image, self.face.labels)
        sources = [
            pipe.null_style(self.labels)
            if part.source is None
            else pipe.read_style(part.source.image, part.source.labels)
            for part in self.parts
        ]
        shares = [frame / (self.frames - 1) for frame in range(self.frames)] if self.frames else [1.0]
        recipes = []
        for share in shares:
            style = pipe.null_style(self.labels) if self.random_face else own
            for part, source in zip(self.parts, sources, strict=True):
                style = style.lerp(source, share * part.amount, part.regions)
            recipes.append(self._recipe(pipe, style, checkpoint, share))
        if self.frames:
            return recipes
        first = self.options.get("seed", 0)
        assert isinstance(first, int)
        return [recipes[0].with_seed(first + number) for number in range(self.variants)]

    def _recipe(self, pipe: FacePipeline, style: StyleCode, checkpoint: str, share: float) -> Recipe:
        changed = tuple(dict.fromkeys(region for part in self.parts for region in part.regions))
        description = {
            "checkpoint": checkpoint,
            "weights": self.weights,
            "face": self.face.name,
            "parts": [part.summary() for part in self.parts] or (["random face"] if self.random_face else []),
            "share": share,
        }
        return Recipe(
            style=style,
            labels=self.labels,
            options=self.options,
            photo=self.face.image if self.lock else None,
            photo_labels=self.face.labels if self.lock else None,
            regions=pipe.label_set.regions if self.random_face else changed,
            description=description,
        )


@dataclass(frozen=True)
class Result:
    """A sampled image.

    Attributes:
        image: (3, H, W) in [-1, 1], on the CPU.
        before: source image, if any.
        png: PNG file with the recipe.
        recipe: inputs of the image.
    """

    image: Tensor
    before: Tensor | None
    png: bytes
    recipe: Recipe

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        recipe = self.recipe
        tensors = (
            self.image,
            self.before,
            recipe.style.codes,
            recipe.labels,
            recipe.photo,
            recipe.photo_labels,
        )
        return len(self.png) + sum(tensor.nbytes for tensor in tensors if tensor is not None)

    @property
    def title(self) -> str:
        """Title in the history."""
        listed = self.recipe.description.get("parts")  # untrusted if the recipe was loaded
        parts = [str(part)[:200] for part in listed] if isinstance(listed, list) else []
        return f"{'; '.join(parts) or 'label map edited'} · seed {self.recipe.options.get('seed', 0)}"


@dataclass
class Session:
    """Selections and results of a visitor; mutable.

    Attributes:
        photo: the photo of the photo tab, with its edits.
        photo_reference: face of the gallery, the style reference for the photo.
        face, reference, parts: selections of the tab of aligned faces.
        results: its images, newest first.
        shown: the displayed image.
    """

    photo: OpenedPhoto | None = None
    photo_reference: Face | None = None
    face: Face | None = None
    reference: Face | None = None
    parts: tuple[RegionEdit, ...] = ()
    results: list[Result] = field(default_factory=list)
    shown: Result | None = None

    def remember(self, result: Result) -> None:
        """Add an image to the history, newest first, and display it."""
        self.shown = result
        self.results.insert(0, result)
        del self.results[MAX_HISTORY:]

    def with_selection(self, regions: Sequence[str], random: bool, amount: float) -> tuple[RegionEdit, ...]:
        """Return the listed edits plus the current selection.

        Raises:
            ValueError: selected regions without a reference face.
        """
        if not regions:
            return self.parts
        if not random and self.reference is None:
            raise ValueError("select a reference face first, or set the style source to Random")
        return (*self.parts, RegionEdit(tuple(regions), None if random else self.reference, amount))

    def use(self, face: Face, as_reference: bool) -> None:
        """Set the reference or the face to edit."""
        if as_reference:
            self.reference = face
        else:
            self.face = face
