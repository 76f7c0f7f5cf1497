"""Ratings of a listening test: agreement of listeners, intervals of scores, and screening of listeners."""
