"""Sampling controls: the common ones visible, the others in an accordion."""

import secrets
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ldm.pipeline.options import DEFAULT_STEPS, SamplingOptions
from ldm.sampling.solvers import SOLVERS

MAX_STEPS, MAX_VARIANTS, SEEDS = 200, 8, 2**31
WEIGHTS = {"ema": "EMA", "raw": "raw (without EMA)"}


@dataclass(frozen=True)
class Settings:
    """Validated values of the controls, which come from the browser."""

    seed: int
    lock_seed: bool
    lock: bool
    variants: int
    steps: int
    solver: str
    guidance: float
    weights: str

    @classmethod
    def read(cls, *values: Any) -> "Settings":
        """Parse the values of the controls in order; sample a new seed unless it is locked.

        Raises:
            ValueError: a value that is not a number or out of range.
        """
        seed, lock_seed, lock, variants, steps, solver, guidance, weights = values
        try:
            seed, variants, steps, guidance = int(seed or 0), int(variants), int(steps), float(guidance)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError("seed, variants, steps and guidance must be numbers") from error
        if not 1 <= variants <= MAX_VARIANTS or not 1 <= steps <= MAX_STEPS:
            raise ValueError(
                f"variants must be in [1, {MAX_VARIANTS}] and steps in [1, {MAX_STEPS}], got {variants} and {steps}"
            )
        if not lock_seed:
            seed = secrets.randbelow(SEEDS)
        return cls(seed, bool(lock_seed), bool(lock), variants, steps, str(solver), guidance, str(weights))

    def options(self) -> SamplingOptions:
        """Return the sampling options of the pipeline."""
        return {"seed": self.seed, "steps": self.steps, "solver": self.solver, "guidance": self.guidance}


def build(kinds: tuple[str, ...]) -> list[gr.components.Component]:
    """Build the controls; return them in the order of `Settings`."""
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        with gr.Row(elem_id="seed-row"):
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=110, elem_id="seed")
            lock_seed = gr.Checkbox(False, label="Lock seed", min_width=120, elem_id="lock-seed")
            lock = gr.Checkbox(True, label="Keep the rest of the photo", min_width=150, elem_id="lock")
        with gr.Row():
            variants = gr.Slider(
                1, MAX_VARIANTS, 1, step=1, label="Variants", min_width=130, elem_id="variants"
            )
            steps = gr.Slider(
                1, MAX_STEPS, DEFAULT_STEPS, step=1, label="Steps", min_width=130, elem_id="steps"
            )
            guidance = gr.Slider(
                0,
                6,
                1,
                step=0.1,
                label="Guidance",
                info="Scale of classifier-free guidance; 1 disables it.",
                min_width=130,
            )
        solver = gr.Radio(list(SOLVERS), value="dpmpp_2m", label="Solver")
        weights = gr.Radio(
            [(WEIGHTS[kind] if len(kinds) > 1 else "as stored", kind) for kind in kinds],
            value=kinds[0],
            label="Weights",
            info=None if len(kinds) > 1 else "This checkpoint has one set of weights.",
        )
    return [seed, lock_seed, lock, variants, steps, solver, guidance, weights]
