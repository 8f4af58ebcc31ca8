"""Noise schedule, solvers and guidance; independent of networks."""

from ldm.sampling.guidance import guide
from ldm.sampling.schedule import NoiseSchedule
from ldm.sampling.solvers import SOLVERS, invert, sample

__all__ = ["SOLVERS", "NoiseSchedule", "guide", "invert", "sample"]
