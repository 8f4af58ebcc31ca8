"""Training runs: config, run folder, checkpoints, progress, preview images."""
