"""Synthetic faces with exact label maps, generated from a seed."""
