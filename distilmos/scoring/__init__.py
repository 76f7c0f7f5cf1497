"""Scores of predictions against ratings, with bootstrap intervals, and paired comparisons."""
