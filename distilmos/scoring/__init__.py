"""Score predictions against ratings, with bootstrap intervals, and compare two predictions of the same set."""
