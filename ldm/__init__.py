"""SCA-DM: controllable face synthesis from semantic masks."""

import os

# OpenMP threads that spin while they wait for a thread that another process has displaced slow a busy CPU tenfold;
# sleeping costs nothing measurable on an idle one. OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.2.0"
