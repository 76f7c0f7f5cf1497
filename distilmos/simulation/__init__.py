"""Simulate corpora: degradations of speech with graded strength, and the ratings of simulated listeners."""
