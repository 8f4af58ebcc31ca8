"""Seeded fuzzing of every file and option that people pass around: `make fuzz` runs all of it."""
