"""Trainable models: first stage, diffusion and face parser."""
