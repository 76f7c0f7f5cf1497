"""Figures as files of their own."""

from __future__ import annotations

import re

from distilmos.report.figures import PALETTE, Point, as_file, plane, scatter


def test_the_legend_of_a_file_has_the_markers_of_the_picture():
    points = [Point(f"model {n}", n, n, (n - 1, n + 1), (n - 1, n + 1)) for n in range(len(PALETTE) + 1)]
    text = as_file(plane("p", "A title", points, "x", "y"))
    fills = re.findall(r'<circle [^>]*fill="([^"]+)" stroke="([^"]+)"', text)
    assert fills == [*((colour, colour) for colour in PALETTE), ("white", PALETTE[0])]


def test_many_points_do_not_make_a_page_large():
    scores = [1 + 4 * n / 20000 for n in range(20000)]
    few, many = (scatter("s", "A title", scores[:count], scores[:count], ["g"] * count).svg for count in (2000, 20000))
    assert few.count("<use") >= 2000
    assert len(many) < len(few) < 500_000
