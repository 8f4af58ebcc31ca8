"""What happens around a training run: config, run folder, checkpoints, progress, pictures."""
