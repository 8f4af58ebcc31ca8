"""What a model is worth, in numbers: sample by a protocol, score, report. `scripts/evaluate.py` calls it."""
