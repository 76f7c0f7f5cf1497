"""Simulated corpora: degradations of speech, and listeners that do not exist."""
