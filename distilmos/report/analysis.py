"""Show the measures of `distilmos analyze` as tables and figures, and write ANALYSIS.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distilmos.analysis.generalisation import CONDITIONS, GROUP, GROUPS, MEASURES
from distilmos.analysis.result import AFTER, BEFORE, read_analysis
from distilmos.files import write_text
from distilmos.markdown import markdown_table, number, with_interval
from distilmos.provenance import machine_text
from distilmos.report import figures
from distilmos.report.experiment import Experiment, read_experiment
from distilmos.report.figures import BLUE, GREEN, ORANGE, Figure, Line
from distilmos.report.layer_history import over_training

PAGE = "ANALYSIS.md"
NAMES = {BEFORE: "frozen", AFTER: "fine-tuned"}
PROBE_COLOURS = {
    ("accuracy", BEFORE): BLUE,
    ("accuracy", AFTER): ORANGE,
    ("LCC", BEFORE): BLUE,
    ("LCC", AFTER): BLUE,
    ("SRCC", BEFORE): ORANGE,
    ("SRCC", AFTER): ORANGE,
}

Table = tuple[list[str], list[list[str]]]  # header, rows


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: heading.
        text: explanation of the numbers.
        figures: file name without suffix -> figure.
        tables: header and rows of each table.
    """

    title: str
    text: str
    figures: dict[str, Figure]
    tables: list[Table] = field(default_factory=list)


def write_analysis(directory: str | Path, experiment: str | Path | None) -> Path:
    """Write ANALYSIS.md and its figures next to analysis.json; return the path of ANALYSIS.md.

    Args:
        directory: directory of analysis.json.
        experiment: exp/<tag>, whose log holds the token accuracies in training; None for an encoder alone.

    Raises:
        InputError: if analysis.json or the log is faulty.
    """
    directory = Path(directory)
    result = read_analysis(directory)
    sections = analysis_sections(result)
    if experiment is not None:
        sections += training_sections(read_experiment(experiment))
    for section in sections:
        for name, figure in section.figures.items():
            write_text(directory / f"{name}.svg", figures.as_file(figure))
    title = f"# Layer analysis of {Path(result['subject']).resolve().name}\n"
    write_text(directory / PAGE, "\n".join([title, *analysis_text(result, sections)]))
    return directory / PAGE


def analysis_text(
    result: Mapping[str, Any], sections: Sequence[Section], folder: str = "", level: str = "##"
) -> list[str]:
    """Return the paragraphs of a page in Markdown.

    Args:
        result: content of analysis.json.
        sections: sections to show.
        folder: folder of the figures relative to the page, with a slash at the end.
        level: Markdown marker of the section headings.
    """
    parts = ["".join(f"- {name}: {text}\n" for name, text in analysis_facts(result).items())]
    for section in sections:
        parts += [f"{level} {section.title}\n", section.text + "\n"]
        parts += [f"![{figure.title}]({folder}{name}.svg)\n" for name, figure in section.figures.items()]
        parts += [markdown_table(header, rows) for header, rows in section.tables]
    return parts


def analysis_facts(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the encoder, data and provenance of an analysis, name -> text."""
    facts = {
        "Frozen encoder": str(result["ssl"]),
        "Data": f"{', '.join(result['data'])}: {result['utterances']} utterances "
        f"({result['seconds'] / 3600:.2f} h), {result['frames']:,} sampled frames; seed {result['seed']}",
    }
    if result.get("test_data"):
        facts["Test data"] = ", ".join(result["test_data"])
    if result["notes"]:
        facts["Notes"] = result["notes"]
    if result["kmeans"]:
        facts["K-means"] = str(result["kmeans"])
    if result["left_out"]:
        facts["Not computed"] = "; ".join(result["left_out"])
    commit = result["commit"] or "not known"
    facts["Created"] = f"{result['time']}, commit {commit}; {machine_text(result['hardware'])}"
    return facts


def analysis_sections(result: Mapping[str, Any]) -> list[Section]:
    """Return the sections on the measures of an analysis."""
    present = [BEFORE, AFTER] if result["model"] else [BEFORE]
    sections = []
    if tests := result.get("generalisation"):
        sections.append(_generalisation(tests, result.get("rated", "MOS")))
    sections.append(_similarity(result))
    if result["tokens"]:
        sections += [_tokens(result, present), _fit(result["tokens"], present)]
    if result["probes"]:
        sections.append(_probes(result["probes"]))
    return sections


def training_sections(experiment: Experiment) -> list[Section]:
    """Return the section on the token accuracies in training; an empty list if the log has none."""
    figure = over_training(experiment, "token_accuracy")
    if figure is None:
        return []
    text = "Share of the frames of the dev set whose token id the heads of the network predict, during training."
    return [Section("Token accuracy in training", text, {"token_accuracy": figure})]


def _generalisation(tests: Sequence[Mapping[str, Any]], rated: str) -> Section:
    text = (
        f"Ridge regression predicts the {rated} of an utterance from the mean and the standard deviation over time "
        "of all layers together, or of one layer. `unseen conditions` is a cross-validation that keeps all "
        "utterances of a condition, and all copies of it, in one fold. `unseen groups` fits without the conditions "
        "of a group and predicts them; conditions that several systems repeat stay in the fit, and a group needs "
        "two others. Other columns fit all of the data and predict another set. Cross-validation within each fit "
        "chooses the penalty and the best single layer. Do not choose a layer from the second table: on the tested "
        "utterances, the best one of several looks too good. Brackets hold 95 % bootstrap intervals over the tested"
        " conditions; the fit stays the same."
    )
    columns = [test for test in tests if test["kind"] != GROUP]
    header = ["", *(test["name"] for test in columns)]
    summary = [
        [f"{title}, {measure}", *(with_interval(test[key][measure]) for test in columns)]
        for key, title in (("all", "all layers"), ("best", "best single layer"))
        for measure in MEASURES
    ]
    summary.append(["layer chosen", *(_counted(test["chosen"]) for test in columns)])
    summary.append(["conditions", *(f"{test['conditions']:,}" for test in columns)])
    summary.append(["utterances", *(f"{test['utterances']:,}" for test in columns)])
    layers = [row["layer"] for row in tests[0]["layers"]]
    by_layer = [
        [str(layer), *(with_interval(test["layers"][place]["LCC"]) for test in columns)]
        for place, layer in enumerate(layers)
    ]
    tables: list[Table] = [(header, summary), (["layer: LCC", *header[1:]], by_layer)]
    groups = [test for test in tests if test["kind"] == GROUP]
    if groups:
        titles = [f"{title} {measure}" for title in ("all layers", "best single layer") for measure in MEASURES]
        scores = [
            [
                test["name"],
                f"{test['conditions']:,}",
                *(with_interval(test[key][measure]) for key in ("all", "best") for measure in MEASURES),
            ]
            for test in groups
        ]
        tables.append((["unseen group", "conditions", *titles], scores))
    lines = [
        Line(test["name"], layers, _known(row["LCC"]["value"] for row in test["layers"]), colour)
        for kind, colour in ((CONDITIONS, BLUE), (GROUPS, ORANGE))
        for test in tests
        if test["kind"] == kind
    ]
    figure = figures.layer_lines("generalisation", f"LCC of {rated} from one frozen layer", lines)
    return Section(f"{rated} from frozen features", text, {"generalisation": figure}, tables)


def _counted(layers: Sequence[int]) -> str:
    """Return each layer with the number of fits that chose it, if there are several fits."""
    if len(layers) == 1:
        return str(layers[0])
    return ", ".join(f"{layer} ({count}x)" for layer, count in sorted(Counter(layers).items()))


def _similarity(result: Mapping[str, Any]) -> Section:
    text = (
        "Linear centred kernel alignment (CKA; Kornblith et al., 2019) of two layers on the same frames: 1 if one "
        "layer is a rotation and scaling of the other, 0 if they have nothing in common."
    )
    columns = "layer"
    if result["model"]:
        columns = "fine-tuned layer"
        text += " The diagonal compares each frozen layer with the same layer after fine-tuning."
    values = [_known(row) for row in result["similarity"]]
    figure = figures.layer_map("similarity", "Similarity of layers (linear CKA)", values, "frozen layer", columns)
    return Section("Similarity of layers", text, {"similarity": figure})


def _tokens(result: Mapping[str, Any], present: Sequence[str]) -> Section:
    rows = result["tokens"]
    title = "Token probes"
    text = (
        "Share of the token ids of the frozen layer that a linear probe (discriminant analysis, trained on other "
        f"utterances) finds in {result['held_out']} held-out utterances. Chance is the share of the most frequent id."
    )
    columns = {f"probe, {NAMES[name]} layer": [row[name]["probe"] for row in rows] for name in present}
    styles = [(GREEN, True), (GREEN, False), (ORANGE, False), (BLUE, False)]
    if AFTER in present:
        title = "Forgetting"
        text += (
            " Compare the fine-tuned layer with the frozen one. A rotation or shift of a layer does not affect the "
            "probe. It does affect the nearest centroid, because the centroids stay fixed: 'same nearest centroid' is "
            "the share of all frames that keep their id. CKA is the diagonal of the map above."
        )
        columns["same nearest centroid"] = [row[AFTER]["agreement"] for row in rows]
        columns["CKA"] = [values[place] for place, values in enumerate(result["similarity"])]
    layers = [row["layer"] for row in rows]
    lines = [
        Line(name, layers, _known(values), colour, dashed)
        for (name, values), (colour, dashed) in zip(columns.items(), styles, strict=False)
    ]
    table = _table(layers, columns | {"chance": [row["chance"] for row in rows]})
    return Section(title, text, {"forgetting": figures.layer_lines("forgetting", title, lines)}, [table])


def _fit(rows: Sequence[Mapping[str, Any]], present: Sequence[str]) -> Section:
    layers = [row["layer"] for row in rows]
    lines = [
        Line(f"{NAMES[n]} layer", layers, _known(row[n]["explained_variance"] for row in rows), GREEN, n == BEFORE)
        for n in present
    ]
    columns = {
        f"{title}, {NAMES[name]}": [row[name][key] for row in rows]
        for key, title in (("explained_variance", "explained variance"), ("inertia_per_frame", "inertia per frame"))
        for name in present
    }
    text = "Fit of the centroids of the frozen layers. Below 0, they fit worse than the mean of all frames."
    figure = figures.layer_lines("fit", "Variance explained by the centroids", lines)
    return Section("Fit of the k-means centroids", text, {"fit": figure}, [_table(layers, columns)])


def _probes(tasks: Sequence[Mapping[str, Any]]) -> Section:
    drawn: dict[str, Figure] = {}
    counts: list[list[str]] = []
    columns: dict[str, list[Any]] = {}
    spreads: dict[str, list[Any]] = {}
    layers = [row["layer"] for row in tasks[0]["layers"]]
    for place, task in enumerate(tasks, start=1):
        rows, lines = task["layers"], []
        for (measure, name), colour in PROBE_COLOURS.items():
            if measure not in rows[0].get(name, ()):
                continue
            column = f"{task['name']} {measure}, {NAMES[name]}"
            columns[column] = [row[name][measure] for row in rows]
            line = Line(f"{measure}, {NAMES[name]}", layers, _known(columns[column]), colour, dashed=name == BEFORE)
            if measure == "accuracy":
                spreads[column] = [row[name]["sd"] for row in rows]
                line = replace(line, spread=spreads[column])
            lines.append(line)
        chance, labels = task["chance"], "" if task["classes"] is None else f"{task['classes']:,}"
        level = None if chance is None else ("chance", chance)
        drawn[f"probe{place}"] = figures.layer_lines(f"probe{place}", f"Probe of {task['name']}", lines, level)
        counts.append([task["name"], f"{task['utterances']:,}", labels, number(chance), task["folds_of"]])
    text = (
        "Cross-validated ridge regression predicts the label or the mean score of an utterance from the mean and "
        "the standard deviation of a layer over time. Chance is the share of the most frequent label; ± is the "
        "standard deviation over folds. LCC and SRCC are over the predictions of all folds together."
    )
    header = ["target", "utterances", "labels", "chance", "folds of whole"]
    return Section("Probes", text, drawn, [(header, counts), _table(layers, columns, spreads)])


def _known(values: Iterable[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _table(
    layers: Sequence[int], columns: Mapping[str, Sequence[Any]], spreads: Mapping[str, Sequence[Any]] | None = None
) -> Table:
    """Return a table with a row for each layer; `spreads` holds the standard deviations of some columns."""
    rows = []
    for place, layer in enumerate(layers):
        cells = [str(layer)]
        for name, values in columns.items():
            spread = f" ± {number(spreads[name][place])}" if spreads and name in spreads else ""
            cells.append(number(values[place]) + spread)
        rows.append(cells)
    return ["layer", *columns], rows
