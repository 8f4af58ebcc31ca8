"""Measures of single pictures, label maps and sets of features; nothing here knows a model."""
