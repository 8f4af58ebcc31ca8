"""Metrics of images, label maps and sets of features; independent of models."""
