"""Sampling options of the pipeline, validated before any computation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypedDict, TypeGuard, Unpack, get_args

from torch import Tensor

from ldm.closest_name import by_similarity
from ldm.sampling.multistep import Progress, default_order
from ldm.sampling.schedule import SPACINGS, Spacing
from ldm.sampling.solvers import SOLVERS, UNIPC_ORDERS

Null = Literal["empty", "zero"]
# Receives a function that decodes the current x0 estimate (B, 3, H, W); nothing is computed unless it is called.
Preview = Callable[[Callable[[], Tensor]], None]

# Closer to 1,000 DDIM steps than 50 DDIM steps are; with guidance, 8 of dpmpp_2m are not (docs/sampling.md).
DEFAULT_STEPS, DDIM_STEPS = 10, 50  # of dpmpp_2m and unipc; of ddim, ddpm and plms
# Spacing with the lowest error at 20 steps (docs/sampling.md); other solvers use the published one.
BEST_SPACING: dict[str, Spacing] = {"dpmpp_2m": "logsnr", "unipc": "logsnr"}
# Options that decide the image; the others decide memory, time and callbacks.
STORED_OPTIONS = (
    "steps",
    "solver",
    "spacing",
    "order",
    "eta",
    "seed",
    "guidance",
    "null",
    "guidance_interval",
)


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments of `Sampling`."""

    steps: int | None
    solver: str
    spacing: Spacing | None
    order: int | None
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
    """Sampling options.

    Attributes:
        steps: number of solver steps, in [1, 1000]; None for 10 with dpmpp_2m and unipc, 50 with the others.
            At most the number of timesteps of the model.
        solver: name in `ldm.sampling.SOLVERS`.
        spacing: timestep spacing, "uniform", "quadratic" or "logsnr"; None for the best of the solver.
        order: order of unipc, 1 to 3; None for 2 up to 12 steps and 3 for more.
        eta: stochasticity of DDIM, in [0, 1].
        seed: seed of the noise, for all images or one per image. The noise does not depend on the batch; nor
            does the image, up to rounding: in float32 it is invisible, in bfloat16 and float16 it can reach
            several of 255 levels.
        guidance: scale of classifier-free guidance; 1 disables it. A dict by region name guides single
            regions.
        null: null condition of guidance: "empty", the style of an all-zero image with the true mask, or
            "zero", the published zero style and zero mask.
        guidance_interval: range of noise levels sigma = sqrt((1 - alpha_bar) / alpha_bar) with guidance
            (arXiv 2404.07724); None for all. It and `null` have no effect where guidance is 1.
        batch_size: images per batch; None for as many as fit into memory.
        cache: compute the step-independent conditioning once per image. False recomputes it at every step,
            which is slower, keeps nothing between steps, and has the same peak memory.
        progress: callback after every step, with the steps done and the total; exceptions abort sampling.
        preview: callback at every prediction (one per step, two in the first step of plms) with a function
            that decodes the current x0 estimate of the images in the current batch; cheap after
            `FacePipeline.fit_preview`.

    Raises:
        ValueError: an invalid value.
    """

    steps: int | None = None
    solver: str = "dpmpp_2m"
    spacing: Spacing | None = None
    order: int | None = None
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
        if not all(_is_real(scale) and math.isfinite(scale) for scale in self.scales):
            raise ValueError(
                f"guidance must be finite (1 disables it), a number or one per region, got {self.guidance!r}"
            )
        if not (_is_real(self.eta) and 0 <= self.eta <= 1):
            raise ValueError(f"eta must be in [0, 1], got {self.eta!r}")
        if self.eta and self.solver not in ("ddim", "ddpm"):
            raise ValueError(
                f"eta has no effect with solver {self.solver}, got {self.eta}; remove it or use ddim"
            )
        for seed in _listed(self.seed):
            if not 0 <= seed < 2**63:
                raise ValueError(f"seed must be in [0, 2^63 - 1], got {seed}")
        for name, value in {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "order": self.order,
        }.items():
            if value is not None and not is_integer(value):
                raise ValueError(f"{name} must be an integer or None, got {value!r}")
        if self.order is not None and (self.solver != "unipc" or self.order not in UNIPC_ORDERS):
            raise ValueError(
                f"order must be 1, 2 or 3 with the solver unipc, got {self.order!r} with {self.solver}"
            )
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise ValueError(f"steps must be in [1, 1000], got {self.steps}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 or None, got {self.batch_size}")
        if not isinstance(self.cache, bool):
            raise ValueError(f"cache must be True or False, got {self.cache!r}")
        if self.guidance_interval is not None and not _is_interval(self.guidance_interval):
            raise ValueError(
                "guidance_interval must be (low, high) in sigma with 0 <= low < high, "
                f"got {self.guidance_interval!r}"
            )

    @property
    def scales(self) -> list[float]:
        """All guidance scales: one number, or those of the regions."""
        return list(self.guidance.values()) if isinstance(self.guidance, Mapping) else [self.guidance]

    @property
    def without_effect(self) -> list[str]:
        """Names of options that change nothing because guidance is 1."""
        if any(scale != 1 for scale in self.scales):
            return []
        given = {"null": self.null != "empty", "guidance_interval": self.guidance_interval is not None}
        return [name for name, is_given in given.items() if is_given]

    @property
    def used_spacing(self) -> Spacing:
        """Timestep spacing, with None resolved to the best of the solver."""
        return self.spacing or BEST_SPACING.get(self.solver, "uniform")

    @property
    def used_order(self) -> int | None:
        """Order of unipc, with None resolved to the best for the steps; None for other solvers."""
        return self.order or (default_order(self.used_steps) if self.solver == "unipc" else None)

    @property
    def used_steps(self) -> int:
        """Number of steps, with None resolved to the solver's."""
        if self.steps is not None:
            return self.steps
        return DEFAULT_STEPS if self.solver in BEST_SPACING else DDIM_STEPS

    def seeds(self, count: int) -> list[int]:
        """Return one seed per image; raise ValueError unless there are `count` or a single one."""
        given = _listed(self.seed)
        if is_integer(self.seed):
            return given * count
        if len(given) != count:
            raise ValueError(
                f"seed must be one number or one per image, got {len(given)} seeds for {count} images"
            )
        return given


def validate_options(**options: Unpack[SamplingOptions]) -> Sampling:
    """Validate options; an unknown name raises ValueError with the closest one."""
    for name in options:
        _one_of("option", name, SamplingOptions.__annotations__)
    return Sampling(**options)


def stored_options(options: SamplingOptions) -> dict[str, Any]:
    """Return the options in STORED_OPTIONS as values that JSON can store: numbers of NumPy become Python's."""
    return {name: _plain(value) for name, value in options.items() if name in STORED_OPTIONS}


def is_integer(value: object) -> bool:
    """Return whether a value is an integer of Python or NumPy; booleans are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_interval(value: Any) -> bool:
    ends = _elements(value)
    return len(ends) == 2 and all(map(_is_real, ends)) and 0 <= ends[0] < ends[1]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if is_integer(value):
        return int(value)
    if _is_real(value):
        return float(value)
    return value if value is None or isinstance(value, str) else [_plain(one) for one in value]


def _elements(value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        return [value]


def _listed(seed: int | Sequence[int]) -> list[int]:
    several = _elements(seed)
    if not several or not all(map(is_integer, several)):
        raise ValueError(f"seed must be an integer or one per image, got {seed!r}")
    return [int(one) for one in several]


def validate_inversion_options(**options: Unpack[SamplingOptions]) -> Sampling:
    """Validate options for an edit by inversion; defaults to 50 steps of DDIM.

    Raises:
        ValueError: as in `validate_options`, a solver other than ddim, or a nonzero eta.
    """
    options.setdefault("solver", "ddim")
    checked = validate_options(**options)
    if checked.solver != "ddim" or checked.eta != 0:
        raise ValueError(
            f"inversion requires solver ddim with eta 0, got {checked.solver} with eta {checked.eta}"
        )
    return checked


def _one_of(kind: str, value: object, known: Sequence[str] | Mapping[str, object]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"unknown {kind} {value!r}; available: {', '.join(by_similarity(value, known))}")
