"""How to sample: the options that every call of the pipeline takes, checked before anything is computed."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, TypedDict, Unpack, cast, get_args

from torch import Tensor

from ldm.sampling.schedule import SPACINGS, Spacing
from ldm.sampling.solvers import SOLVERS

Null = Literal["empty", "zero"]
Progress = Callable[[int, int], None]  # solver steps done, solver steps in all
# Takes a function that decodes what the pictures (B, 3, H, W) look like so far; not calling it costs nothing.
Preview = Callable[[Callable[[], Tensor]], None]

# Where 20 steps end nearest to the exact solution, see docs/sampling.md; others take the published spacing.
BEST_SPACING: dict[str, Spacing] = {"dpmpp_2m": "logsnr", "unipc": "logsnr"}


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments of `Sampling`."""

    steps: int
    solver: str
    spacing: Spacing | None
    eta: float
    seed: int | Sequence[int]
    guidance: float | Mapping[str, float]
    null: Null
    guidance_interval: tuple[float, float] | None
    batch_size: int | None
    cache: bool
    progress: Progress | None
    preview: Preview | None


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes:
        steps: calls of the network, 1..1000.
        solver: one of `ldm.sampling.SOLVERS`.
        spacing: of the timesteps, "uniform", "quadratic" or "logsnr"; None for the solver's best.
        eta: fresh noise in ddim, 0..1.
        seed: of the noise; one for all images, or one per image. The image of a seed does not depend on its batch.
        guidance: 1 for none; more follows the style more strongly than the network does by itself. By region name,
            for some regions only.
        null: what guidance moves away from: "empty", the empty image's style with the true mask, or "zero", the
            published zero style and zero mask.
        guidance_interval: the noise levels sigma = sqrt((1 - alpha_bar) / alpha_bar) between which to guide (arXiv
            2404.07724); None for all.
        batch_size: images to make at once; None for as many as memory lets.
        cache: compute once per image what stays the same at every step. Off, each step computes it anew: more time;
            nothing is held between steps, though during a step as much is.
        progress: called after every step with the steps done and the steps in all. What it raises ends the sampling.
        preview: called at every step with a function that decodes what the network expects by then.

    Raises:
        ValueError: a value that cannot be.
    """

    steps: int = 20
    solver: str = "dpmpp_2m"
    spacing: Spacing | None = None
    eta: float = 0.0
    seed: int | Sequence[int] = 0
    guidance: float | Mapping[str, float] = 1.0
    null: Null = "empty"
    guidance_interval: tuple[float, float] | None = None
    batch_size: int | None = None
    cache: bool = True
    progress: Progress | None = None
    preview: Preview | None = None

    def __post_init__(self) -> None:
        _one_of("solver", self.solver, SOLVERS)
        _one_of("null", self.null, get_args(Null))
        if self.spacing is not None:
            _one_of("spacing", self.spacing, SPACINGS)
        strengths = self.guidance.values() if isinstance(self.guidance, Mapping) else [self.guidance]
        if not all(math.isfinite(strength) for strength in strengths):
            raise ValueError(f"guidance is {self.guidance}; wanted finite numbers, 1 for none")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; wanted 0 .. 1")
        if self.eta and self.solver not in ("ddim", "ddpm"):
            raise ValueError(
                f"eta is {self.eta}, which {self.solver} has no use for; leave it out, or take ddim"
            )
        for seed in _listed(self.seed):
            if not 0 <= seed < 2**63:
                raise ValueError(f"seed {seed}: wanted 0 .. 2^63 - 1")
        if not 1 <= self.steps <= 1000:
            raise ValueError(f"{self.steps} sampling steps; wanted 1 .. 1000")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; wanted 1 or more, or None")
        if (
            self.guidance_interval is not None
            and not 0 <= self.guidance_interval[0] < self.guidance_interval[1]
        ):
            raise ValueError(
                f"guidance_interval is {self.guidance_interval}; wanted 0 <= low < high, in sigma"
            )

    @property
    def used_spacing(self) -> Spacing:
        """The spacing, where None has been replaced by the solver's best."""
        return self.spacing or BEST_SPACING.get(self.solver, "uniform")

    def seeds(self, count: int) -> list[int]:
        """Return one seed per image; ValueError if there are more or fewer than `count`."""
        given = _listed(self.seed)
        if isinstance(self.seed, Integral):
            return given * count
        if len(given) != count:
            raise ValueError(f"{len(given)} seeds for {count} images; wanted one, or one per image")
        return given


def sampling(**options: Unpack[SamplingOptions]) -> Sampling:
    """Return checked options; an unknown name raises ValueError with the nearest one."""
    for name in options:
        _one_of("option", name, SamplingOptions.__annotations__)
    return Sampling(**options)


def _listed(seed: int | Sequence[int]) -> list[int]:
    if isinstance(seed, Integral):
        return [int(seed)]
    several = [] if isinstance(seed, str | float) else list(cast(Sequence[int], seed))
    if not several or not all(isinstance(one, Integral) for one in several):
        raise ValueError(f"seed is {seed!r}; wanted a whole number, or one per image")
    return [int(one) for one in several]


def inverting(**options: Unpack[SamplingOptions]) -> Sampling:
    """Return checked options for an edit that starts from an inversion: 50 steps of ddim unless told otherwise.

    Raises:
        ValueError: as `sampling`; another solver, or eta.
    """
    options.setdefault("solver", "ddim")
    options.setdefault("steps", 50)
    how = sampling(**options)
    if how.solver != "ddim" or how.eta != 0:
        raise ValueError(f"inversion wants solver ddim with eta 0, not {how.solver} with {how.eta}")
    return how


def _one_of(what: str, value: str, known: Sequence[str] | Mapping[str, object]) -> None:
    if value not in known:
        nearest = sorted(known, key=lambda name: -difflib.SequenceMatcher(None, name, str(value)).ratio())
        raise ValueError(f"unknown {what} {value!r}; there are {', '.join(nearest)}")
