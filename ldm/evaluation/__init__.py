"""Evaluation of a model: generate images by a protocol, compute metrics, write a report (`scripts/evaluate.py`)."""
