"""Datasets of images with label maps, in folders, tar shards and latent caches."""
