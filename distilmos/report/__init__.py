"""RESULTS.md and the self-contained report.html of an experiment."""
