"""Scores that those of a model are read beside."""
