"""Generated faces with exact label maps."""
