"""Estimates of what a recipe will need."""
