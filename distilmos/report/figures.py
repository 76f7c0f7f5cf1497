"""Draw figures as inline SVG: the same bytes for the same input, readable on a phone.

Text stays text, in the font of the page. The page shows the legends, not the picture, so that they wrap.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from distilmos.data.schema import MOS_SCALE, Scale

# M. Okabe and K. Ito, Color Universal Design (2008), without black, and without yellow, which is too light on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
BLUE, ORANGE, GREEN = PALETTE[:3]
INK, GREY, PALE = "#1f2933", "#616e7c", "#d9dee4"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "distilmos",
    "text.parse_math": False,  # a group may be called "$x"
    "font.size": 10.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
}
WIDTH, HEIGHT, SQUARE = 3.8, 2.7, 4.2  # inches
MANY_POINTS = 2000
DPI = 200  # of points that are stored as pixels
LOG_RANGE = 1e-4  # lowest value shown on a logarithmic scale, as a share of the highest
FEW_POINTS = 12  # a figure with at most this many points or layers shows markers or values
BAR_DISTANCE = 0.012  # between the error bars of two lines, as a share of the width of the picture


@dataclass(frozen=True)
class Key:
    """One entry of a legend; `kind` is dot, ring, line, dash, dots or triangle (see the styles of template.html)."""

    label: str
    colour: str
    kind: str


@dataclass(frozen=True)
class Figure:
    """A picture with its title and legend, which the page shows around it."""

    title: str
    svg: Markup
    legend: list[Key] = field(default_factory=list)


@dataclass(frozen=True)
class Line:
    """One curve; `x` and `y` have equal length, NaN leaves a gap, and `spread` is half the length of the error bars."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: bool = False
    spread: Sequence[float] | None = None


@dataclass(frozen=True)
class Point:
    """One point of a plane with the ends of its two intervals."""

    label: str
    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]


@dataclass(frozen=True)
class Marks:
    """Training steps to mark: the best step and the averaged steps."""

    best: int | None = None
    averaged: Sequence[int] = ()


def group_styles(groups: Sequence[str]) -> dict[str, Key]:
    """Return the style of each group: first all colours as dots, then all colours as rings."""
    return {
        group: Key(group, PALETTE[n % len(PALETTE)], ("dot", "ring")[n // len(PALETTE) % 2])
        for n, group in enumerate(sorted(set(groups)))
    }


def layer_colours(count: int) -> list[str]:
    """Return `count` colours from dark (first layer) to light (last layer) in even steps of lightness."""
    return [to_hex(colormaps["viridis"](share)) for share in np.linspace(0.0, 0.85, count)]


def scatter(
    name: str,
    title: str,
    rated: Sequence[float],
    predicted: Sequence[float],
    groups: Sequence[str],
    scale: Scale = MOS_SCALE,
) -> Figure:
    """Draw predicted against rated scores, both axes at least as long as the scale, with the identity line.

    More than MANY_POINTS points are small and transparent, and stored as pixels: as vectors, 20,000 take 4 MB.

    Args:
        name: prefix that makes the ids inside the picture unique on the page.
        title: title of the figure.
        rated: rated scores, shape (N,).
        predicted: predicted scores, shape (N,).
        groups: group names of the N points; if all are equal, there is no legend.
        scale: of the scores.
    """
    styles = group_styles(groups)
    dense = len(rated) > MANY_POINTS
    with _axes(SQUARE, SQUARE) as (canvas, axes):
        margin = 0.15 * scale.width / MOS_SCALE.width
        low = min(scale.lowest, *rated, *predicted) - margin
        high = max(scale.highest, *rated, *predicted) + margin
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, dashes=(4, 3))
        for group, style in styles.items():
            chosen = [n for n, other in enumerate(groups) if other == group]
            axes.scatter(
                [rated[n] for n in chosen],
                [predicted[n] for n in chosen],
                s=4 if dense else 24 if len(rated) <= 300 else 12,
                facecolors=style.colour if style.kind == "dot" else "none",
                edgecolors="white" if style.kind == "dot" and not dense else style.colour,
                linewidths=0 if dense else 0.4 if style.kind == "dot" else 1.2,
                alpha=0.3 if dense else 0.85,
                rasterized=dense,
            )
        labels = {"xlabel": f"rated {scale.name}", "ylabel": f"predicted {scale.name}"}
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", **labels)
        ticks = [tick for tick in MaxNLocator(10, integer=True).tick_values(low, high) if low <= tick <= high]
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        svg = _svg(canvas, name, f"{title}: predicted against rated {scale.name} of {len(rated)} points")
    legend = list(styles.values()) if len(styles) > 1 else []
    return Figure(title, svg, legend)


def plane(name: str, title: str, points: Sequence[Point], x_label: str, y_label: str) -> Figure:
    """Draw points with their intervals. Points of equal label have one colour, and a line connects them in their order.

    Args:
        name: prefix that makes the ids inside the picture unique on the page.
        title: title of the figure.
        points: in the order of the legend.
        x_label: meaning of x.
        y_label: meaning of y.
    """
    legend = []
    with _axes(SQUARE, SQUARE) as (canvas, axes):
        for place, label in enumerate(dict.fromkeys(point.label for point in points)):
            colour, ring = PALETTE[place % len(PALETTE)], place // len(PALETTE) % 2 == 1
            line = [point for point in points if point.label == label]
            for point in line:
                axes.plot(point.x_ends, (point.y, point.y), color=colour, linewidth=0.8, alpha=0.6)
                axes.plot((point.x, point.x), point.y_ends, color=colour, linewidth=0.8, alpha=0.6)
            x, y = [point.x for point in line], [point.y for point in line]
            face = "white" if ring else colour
            axes.plot(x, y, "o-", color=colour, linewidth=0.8, markersize=6, markerfacecolor=face)
            legend.append(Key(label, colour, "ring" if ring else "dot"))
        axes.set(xlabel=x_label, ylabel=y_label)
        svg = _svg(canvas, name, f"{title}: {y_label} against {x_label}")
    return Figure(title, svg, legend)


def curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    marks: Marks | None = None,
    logarithmic: bool = False,
    level: tuple[str, float] | None = None,
) -> Figure | None:
    """Draw values over training steps; return None if no line has a value.

    Args:
        name: prefix that makes the ids inside the picture unique on the page.
        title: title of the figure.
        lines: curves; those without any value are left out.
        marks: steps to mark.
        logarithmic: whether the scale of the values is logarithmic, which leaves out zeros.
        level: name and height of a horizontal reference line.
    """
    drawn = [line for line in lines if any(math.isfinite(value) for value in line.y)]
    if not drawn:
        return None
    with _axes(WIDTH, HEIGHT) as (canvas, axes):
        legend = _draw(axes, drawn, level)
        if logarithmic:
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))
            axes.yaxis.set_minor_formatter("")
            # Without a limit, the last steps of a decay to zero would fill the picture.
            axes.set_ylim(bottom=LOG_RANGE * max(value for line in drawn for value in line.y if value == value))
        if marks is not None and marks.averaged:
            bottom = np.zeros(len(marks.averaged))
            (points,) = axes.plot(marks.averaged, bottom, "^", color=INK, transform=axes.get_xaxis_transform())
            points.set_clip_on(False)
            legend.append(Key("averaged", INK, "triangle"))
        if marks is not None and marks.best is not None:
            axes.axvline(marks.best, color=GREY, linewidth=1, dashes=(4, 3))
            legend.append(Key("best step", GREY, "dash"))
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        svg = _svg(canvas, name, f"{title} over training steps")
    return Figure(title, svg, legend)


def layer_lines(
    name: str, title: str, lines: Sequence[Line], level: tuple[str, float] | None = None, zoom: bool = False
) -> Figure:
    """Draw shares or correlations over layers, on a scale from 0, or a negative lowest value, to 1.

    Args:
        name: prefix that makes the ids inside the picture unique on the page.
        title: title of the figure.
        lines: curves over layer numbers.
        level: name and height of a horizontal reference line.
        zoom: whether the scale fits the values instead.
    """
    with _axes(WIDTH, HEIGHT) as (canvas, axes):
        legend = _draw(axes, lines, level)
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        if not zoom:
            axes.set_ylim(min([0.0, *(value for line in lines for value in line.y if value == value)]) * 1.05, 1.03)
        svg = _svg(canvas, name, f"{title} over layers")
    return Figure(title, svg, legend)


def class_lines(
    name: str, title: str, classes: Sequence[str], lines: Sequence[Line], level: tuple[str, float], x_label: str
) -> Figure:
    """Draw shares over ordered classes, such as ranges of a difference; the scale ends at 1.

    Args:
        name: prefix that makes the ids inside the picture unique on the page.
        title: title of the figure.
        classes: names of the classes.
        lines: curves over the numbers of the classes, from 0.
        level: name and height of a horizontal reference line.
        x_label: meaning of the classes.
    """
    with _axes(WIDTH, HEIGHT) as (canvas, axes):
        legend = _draw(axes, lines, level)
        axes.set_xlabel(x_label)
        axes.set_xticks(range(len(classes)), classes)
        axes.set_xlim(-0.3, len(classes) - 0.7)
        axes.set_ylim(min([level[1], *(value for line in lines for value in line.y if value == value)]) - 0.05, 1.03)
        svg = _svg(canvas, name, f"{title} by {x_label}")
    return Figure(title, svg, legend)


def _draw(axes: Axes, lines: Sequence[Line], level: tuple[str, float] | None) -> list[Key]:
    """Draw curves and a reference line; return their legend."""
    legend = []
    widest = max(np.ptp(line.x) for line in lines)
    for place, line in enumerate(lines):
        look: dict[str, Any] = {
            "color": line.colour,
            "linestyle": "--" if line.dashed else "-",
            "marker": "o" if len(line.x) <= FEW_POINTS else "",
            "markersize": 3.5,
        }
        if line.spread is None:
            axes.plot(line.x, line.y, **look)
        else:
            # Shifted, because error bars of several lines at the same place could not be told apart.
            x = np.array(line.x) + BAR_DISTANCE * widest * (place - (len(lines) - 1) / 2)
            axes.errorbar(x, line.y, line.spread, elinewidth=1, **look)
        legend.append(Key(line.label, line.colour, "dash" if line.dashed else "line"))
    if level is not None:
        axes.axhline(level[1], color=INK, linewidth=1, dashes=(1, 2))
        legend.append(Key(level[0], INK, "dots"))
    return legend


def layer_map(name: str, title: str, values: Sequence[Sequence[float]], rows: str, columns: str) -> Figure:
    """Draw the similarity of layers, with a cell for each pair.

    Args:
        name: prefix that makes the ids inside the picture unique on the page.
        title: title of the figure.
        values: similarities in 0..1, shape (L, M); NaN leaves a cell empty.
        rows: label of the rows, which count upwards from 1.
        columns: label of the columns.
    """
    matrix = np.array(values, dtype=float)
    colours = colormaps["viridis"]
    # All layers may be similar: start the colour scale near the lowest value.
    low = min(0.9, math.floor(10 * min([1.0, *matrix[~np.isnan(matrix)]])) / 10)
    with _axes(SQUARE, SQUARE) as (canvas, axes):
        edges = [np.arange(count + 1) + 0.5 for count in matrix.shape]
        axes.pcolormesh(edges[1], edges[0], matrix, cmap=colours, vmin=low, vmax=1, edgecolors="white", linewidth=0.6)
        if max(matrix.shape) <= FEW_POINTS:
            size = 10.5 if max(matrix.shape) <= 6 else 6.5
            for (row, column), value in np.ndenumerate(matrix):
                ink = "white" if value < low + 0.6 * (1 - low) else INK
                text = "" if math.isnan(value) else f"{value:.2f}"
                axes.text(column + 1, row + 1, text, ha="center", va="center", fontsize=size, color=ink)
        axes.set(xlabel=columns, ylabel=rows, aspect="equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, prune="both"))
        axes.yaxis.set_major_locator(MaxNLocator(12, integer=True, prune="both"))
        svg = _svg(canvas, name, f"{title}: {rows} against {columns}")
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    return Figure(title, svg, [Key(f"{low + s * (1 - low):.3g}", to_hex(colours(s)), "dot") for s in shares])


def layer_bars(name: str, title: str, values: Mapping[int, float], level: tuple[str, float] | None = None) -> Figure:
    """Draw one bar for each layer.

    Args:
        name: prefix that makes the ids inside the picture unique on the page.
        title: title of the figure.
        values: layer -> value, at least 0.
        level: name and height of a horizontal reference line.
    """
    legend = []
    with _axes(WIDTH, HEIGHT) as (canvas, axes):
        names = [str(layer) for layer in values]
        bars = axes.bar(names, list(values.values()), color=layer_colours(len(values)), width=0.7)
        if len(values) <= FEW_POINTS:
            axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=9 if len(values) <= 6 else 7, color=INK)
        if level is not None:
            axes.axhline(level[1], color=INK, linewidth=1, dashes=(1, 2))
            legend.append(Key(level[0], INK, "dots"))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("layer")
        axes.set_ylim(0, max(1e-9, *values.values(), level[1] if level else 0) * 1.12)
        svg = _svg(canvas, name, f"{title}, one bar for each layer")
    return Figure(title, svg, legend)


def histogram(values: Sequence[float], scale: Scale = MOS_SCALE) -> str:
    """Return an SVG file with the histogram of scores, in sixteenths of the scale: steps of 0.25 from 1 to 5."""
    with _axes(WIDTH, HEIGHT) as (canvas, axes):
        step, margin = scale.width / 16, scale.width / 20
        bins = np.arange(scale.lowest - step / 2, scale.highest + margin, step)
        axes.hist(values, bins=bins.tolist(), color=PALETTE[0], rwidth=0.9)
        axes.grid(visible=False, axis="x")
        axes.set(xlim=(scale.lowest - margin, scale.highest + margin), xlabel=scale.name, ylabel="utterances")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


@contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Canvas, Axes]]:
    """Give a picture of `width` x `height` inches in the style of the report; ignore the user's matplotlib settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        canvas = Canvas(figsize=(width, height), layout="constrained")
        yield canvas, canvas.subplots()


def _svg(canvas: Canvas, name: str, description: str) -> Markup:
    """Return the picture as an <svg> element that takes its width and font from the page."""
    stream = io.StringIO()
    canvas.savefig(stream, format="svg", dpi=DPI, transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    # Ids must be unique among all pictures of the page, and the font must be that of the page.
    text = re.sub(r'((?: id="|href="#|url\(#))', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*;", "", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text)
    label = Markup(' role="img" aria-label="{}"').format(description)
    return Markup(text.replace("<svg", f"<svg{label}", 1))


# Dash patterns of the kinds of Key that are lines; all other kinds become dots.
DASHES = {"line": "none", "dash": "5 3", "dots": "1.5 2.5"}
TITLE_HEIGHT, ROW_HEIGHT = 22, 15  # in points, the unit of the picture
LETTER_WIDTH = 5.5  # mean width of a letter in a legend, in points

_FILE = Markup("""\
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{0}pt" height="{1}pt"
  viewBox="0 0 {0} {1}" font-family="sans-serif" stroke-linejoin="round">
<rect width="100%" height="100%" fill="white"/>
<text x="6" y="15" font-size="12" font-weight="bold" fill="{2}">{3}</text>
{4}
</svg>
""")
_LINE = Markup('<path d="M{} {}h18" stroke="{}" stroke-width="2" stroke-dasharray="{}"/>')
_DOT = Markup('<circle cx="{}" cy="{}" r="4" fill="{}" stroke="{}" stroke-width="1.5"/>')
_LABEL = Markup('<text x="{}" y="{}" font-size="10" fill="{}">{}</text>')


def as_file(figure: Figure) -> str:
    """Return a figure with its title and legend as the text of an SVG file with a white background."""
    picture = str(figure.svg)
    width, height = map(float, picture.partition('viewBox="')[2].partition('"')[0].split()[2:])
    place = f'<svg y="{TITLE_HEIGHT}" width="{width:g}" height="{height:g}"'
    parts = [Markup(picture.replace("<svg", place, 1))]
    x, y = 8.0, TITLE_HEIGHT + height + ROW_HEIGHT
    for key in figure.legend:
        needed = 34 + LETTER_WIDTH * len(key.label)
        if x > 8 and x + needed > width:
            x, y = 8.0, y + ROW_HEIGHT
        if key.kind in DASHES:
            parts.append(_LINE.format(x, y - 3.5, key.colour, DASHES[key.kind]))
        else:
            face = "white" if key.kind == "ring" else key.colour
            parts.append(_DOT.format(x + 9, y - 3.5, face, key.colour))
        parts.append(_LABEL.format(x + 22, y, INK, key.label))
        x += needed
    return _FILE.format(f"{width:g}", f"{y + 8:g}", INK, figure.title, Markup("\n").join(parts))
