"""Fuzzing of all readers of files that a user gives: `test_fuzz.py` briefly, `python -m fuzz` for as long as one likes."""
