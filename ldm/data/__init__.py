"""Datasets, labels, files."""
