"""Read what a Markdown page shows."""

from __future__ import annotations

import re


def tables(markdown: str) -> list[list[list[str]]]:
    """Return the tables of a page: a list of rows of cells each, the header first."""
    blocks = re.findall(r"(?:^\|.*\n?)+", markdown, re.MULTILINE)
    return [[_cells(line) for number, line in enumerate(block.splitlines()) if number != 1] for block in blocks]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def section(markdown: str, title: str) -> str:
    """Return the text of the section with this title of second level."""
    return next(part for part in markdown.split("\n## ") if part.partition("\n")[0] == title)
