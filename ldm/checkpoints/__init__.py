"""Weight files: read, write, locate, convert, and fit to a model."""
