"""Exports of listening tests: one module for each format, and their import into data directories."""
