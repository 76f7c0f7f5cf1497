"""Tables that read well on a terminal and in a Markdown file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table with padded cells, ending in a newline.

    Args:
        header: column names.
        rows: cells; a `|` in a cell is escaped.
        left: number of first columns that are aligned left; the others hold numbers and are aligned right.
    """
    table = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[column]) for row in table)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "| " + " | ".join(padded) + " |\n"

    rule = line(["-" * w if n < left else "-" * (w - 1) + ":" for n, w in enumerate(widths)])
    return line(table[0]) + rule + "".join(map(line, table[1:]))


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Return a number with `digits` decimals, or a dash for None or NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def p_value(value: float | None) -> str:
    """Return a p value with three decimals, `<0.001` below that, or a dash for None or NaN."""
    return "<0.001" if value is not None and value < 0.001 else number(value)


def mean_text(values: Sequence[float | None], digits: int = 3) -> str:
    """Return mean ± standard deviation, a single value alone, or a dash if values are missing, None or NaN."""
    defined = [value for value in values if value is not None and not math.isnan(value)]
    if not defined or len(defined) < len(values):
        return "-"
    spread = f" ± {stdev(defined):.{digits}f}" if len(defined) > 1 else ""
    return f"{fmean(defined):.{digits}f}{spread}"


def bounds(entry: Mapping[str, Any], digits: int = 3, sign: bool = False) -> str:
    """Return the interval of an entry as `[low, high]`, or an empty string if its ends are None or NaN."""
    if entry["low"] is None or math.isnan(entry["low"]):
        return ""
    return f"[{number(entry['low'], digits, sign)}, {number(entry['high'], digits, sign)}]"


def with_interval(entry: Mapping[str, Any]) -> str:
    """Return an entry with `value`, `low` and `high` as `value [low, high]`."""
    return f"{number(entry['value'])} {bounds(entry)}".strip()
