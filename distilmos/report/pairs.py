"""Show the accuracy of the order of pairs as a table and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distilmos.metrics import LEVELS
from distilmos.report import figures
from distilmos.report.experiment import ScoredSet
from distilmos.report.figures import BLUE, GREY, ORANGE, PALETTE, Figure, Line
from distilmos.scoring.pairs import difference_text, pair_rows
from distilmos.scoring.results import scale_in

NOTE = (
    "Order of pairs: accuracy is the share of the pairs of a set that the predicted scores put in the rated order, by "
    "the difference of the rated scores; a tie of the predictions counts half."
)
TITLE = "Accuracy of the order of pairs"
CHANCE = ("chance", 0.5)


def pair_tables(scored: ScoredSet) -> list[dict[str, Any]]:
    """Return a table of the model's accuracy, with the numbers of pairs; none if metrics.json has no pairs."""
    if not scored.metrics.get("pairs"):
        return []
    header = [f"{scale_in(scored.metrics).name} differs by"]
    for level in LEVELS:
        header += [f"{level}s", "pairs"]
    return [{"title": TITLE, "header": header, "rows": pair_rows(scored.metrics["pairs"])}]


def pair_figure(name: str, scored: ScoredSet) -> Figure | None:
    """Draw the accuracy of the model, and of the references for utterances; None without pairs.

    Args:
        name: prefix that makes the ids inside the picture unique on the page.
        scored: the set.
    """
    pairs = scored.metrics.get("pairs")
    if not pairs:
        return None
    lines = [_line(f"{level}s", pairs[level], colour) for level, colour in zip(LEVELS, (BLUE, ORANGE), strict=True)]
    own = scale_in(scored.metrics).name
    compared = [row for row in scored.references if row["target"] == own and LEVELS[0] in row.get("pairs", {})]
    for place, row in enumerate(compared):
        colour = (GREY, *PALETTE[2:])[place % (len(PALETTE) - 1)]
        lines.append(_line(f"utterances: {row['name']}", row["pairs"][LEVELS[0]], colour, dashed=True))
    classes = [_tick(row) for row in pairs[LEVELS[0]]]
    return figures.class_lines(name, TITLE, classes, lines, CHANCE, f"difference of {own}")


def _line(label: str, classes: Sequence[Mapping[str, Any]], colour: str, *, dashed: bool = False) -> Line:
    values = [math.nan if row["accuracy"] is None else row["accuracy"] for row in classes]
    return Line(label, range(len(values)), values, colour, dashed)


def _tick(row: Mapping[str, Any]) -> str:
    return difference_text(row).replace("below ", "< ").replace("from ", "≥ ").replace(" to ", " to\n")
