"""Fuzzing of all readers of files that a user gives: briefly in `test_fuzz.py`, for hours by `python -m fuzz`."""
