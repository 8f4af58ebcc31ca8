"""Datasets, label maps, image files."""
