"""Datasets of image and label pairs, in folders, tar files and cached latents."""
