import html.parser
import json
import math
import re
import shutil

import pytest
from helpers.pages import section, tables

from distilmos.cli import main
from distilmos.errors import InputError
from distilmos.metrics import LEVELS, METRICS
from distilmos.report.overview import NOT_RUN
from distilmos.report.page import error_rows, write_report
from distilmos.scoring.results import Scored, read_metrics

SIMULATED = "The ratings are simulated."
SCATTERS = {f"set{number}-{level}" for number in (1, 2) for level in (*LEVELS, "pairs")}
CURVES = {"loss", "regression", "dev-utterance", "dev-system", "dev-mse", "rate"}
LAYERS = {f"{key}-{kind}" for key in ("layer_weights", "token_accuracy") for kind in ("end", "steps")}


class Page(html.parser.HTMLParser):
    """Collects references, ids, figures, list items and texts of a page, and checks that elements nest.

    Attributes:
        figures: name of the figure -> caption, with the notes.
        missing: items of the list of missing parts.
    """

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self, text):
        super().__init__()
        self.references, self.ids, self.tables, self.open, self.missing = [], [], [], [], []
        self.figures, self._caption, self._listing = {}, "", False
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append("")
        if tag == "figure":
            self._caption = ""
        if tag == "ul":
            self._listing = not attrs  # legends have a class
        if tag == "li" and self._listing:
            self.missing.append("")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)
                if value.endswith("-figure_1"):
                    self.figures[value.removesuffix("-figure_1")] = self._caption

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "table" in self.open:
            self.tables[-1] += data + " "
        if "figcaption" in self.open:
            self._caption += data
        if "li" in self.open and self._listing:
            self.missing[-1] += data


def missing(markdown):
    """Return the list of missing parts; unlike facts, they do not end with a value in backticks."""
    return [line[2:] for line in markdown.splitlines() if line.startswith("- ") and not line.endswith("`")]


def report(exp, kmeans=None):
    markdown, page = write_report(exp, kmeans)
    return markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


def test_report_of_a_complete_experiment(experiments, capsys):
    exp = experiments / "exp" / "distilmos"
    assert main(["report", str(exp), "--kmeans", str(experiments / "kmeans")]) == 0
    assert capsys.readouterr().out.split() == [str(exp / "RESULTS.md"), str(exp / "report.html")]
    text, markdown = (exp / "report.html").read_text(encoding="utf-8"), (exp / "RESULTS.md").read_text(encoding="utf-8")
    page = Page(text)
    assert page.missing == missing(markdown) == []
    assert {"overview", "set1", "set2", "training", "layers", "kmeans", "experiment", "configuration"} <= set(page.ids)
    assert set(page.figures) == {*SCATTERS, *CURVES, *LAYERS, "token"}
    assert ">0.78</text>" in text  # the largest weight of the final model
    final = rf"LCC 0\.951, SRCC 0\.942.*LCC 0\.963, SRCC -.*{SIMULATED}"
    assert re.search(f"<dd>.*{final}</dd>", text) and re.search(f"^- .*{final}`$", markdown, re.MULTILINE)
    assert "1/200" in text  # chance level of the tokens
    # Each curve over training steps marks the averaged steps and the best one; the learning rates add a dashed line.
    curves = len({*CURVES, "token"})
    assert (text.count('class="key triangle"'), text.count('class="key dash"')) == (curves, curves + 1)
    for known in ("0a1b2c3", "A CPU", "4,321,987", "dump/raw/train", " 240 ", " 0.28 h", "12 min 34 s"):
        assert known in text and known in markdown
    assert "distilmos train --config conf/distilmos.yaml --out 'exp/my run'" in markdown
    entry = read_metrics(exp / "results" / "test")["system"]["SRCC"]
    assert f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]" in markdown
    assert f"<b>{entry['value']:.3f}</b><small>[{entry['low']:.3f}, {entry['high']:.3f}]</small>" in text


def test_page_is_self_contained(experiments):
    _, text = report(experiments / "exp" / "distilmos", experiments / "kmeans")
    page = Page(text)
    assert page.references and all(reference.startswith("#") for reference in page.references)
    assert len(page.ids) == len(set(page.ids))
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<link|<!ENTITY", text)


def test_every_table_and_figure_of_simulated_ratings_says_so(experiments):
    markdown, text = report(experiments / "exp" / "distilmos", experiments / "kmeans")
    tables = Page(text).tables
    simulated, real = tables[1:6], tables[6:11]  # scores, P.1401, pairs, groups, systems; no groups, but k-means
    assert len(tables) == 11
    assert all(SIMULATED in table for table in simulated)
    assert not any("simulated" in table for table in real)
    before_tables = re.findall(r"(?:^|\n)([^\n|]+)\n\n\|", section(markdown, "test"))
    assert len(before_tables) == 5 and all(SIMULATED in line for line in before_tables)
    with_notes = {name for name, caption in Page(text).figures.items() if SIMULATED in caption}
    assert with_notes == {"set1-utterance", "set1-system", "set1-pairs", "dev-utterance", "dev-system", "dev-mse"}


def test_the_same_input_gives_the_same_bytes(experiments):
    exp = experiments / "exp" / "distilmos"
    first = report(exp, experiments / "kmeans")
    assert report(exp, experiments / "kmeans") == first


def test_a_baseline_has_no_token_and_layer_sections(experiments):
    markdown, text = report(experiments / "exp" / "sslmos")
    page = Page(text)
    assert set(page.figures) == {*SCATTERS, *CURVES}
    assert "training" in page.ids and not {"layers", "kmeans", "analysis"} & set(page.ids)
    assert page.missing == missing(markdown) == []


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("config.yaml", "config.yaml"),
        ("log.jsonl", "log.jsonl"),
        ("results", "results"),
        ("results/test/metrics.json", "results/test"),
    ],
)
def test_missing_parts_are_named(experiments, removed, named):
    exp = experiments / "exp" / "distilmos"
    path = exp / removed
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    markdown, text = report(exp, experiments / "kmeans")
    assert [line.partition(":")[0] for line in missing(markdown)] == [named]
    assert Page(text).missing == missing(markdown)


def test_missing_kmeans_quality_is_named_for_a_model_with_tokens(experiments):
    markdown, _ = report(experiments / "exp" / "distilmos")
    (line,) = missing(markdown)
    assert "--kmeans" in line


def test_an_unfinished_run_is_reported(experiments):
    exp = experiments / "exp" / "sslmos"
    lines = (exp / "log.jsonl").read_text().splitlines()
    (exp / "log.jsonl").write_text("\n".join(lines[:4]) + '\n{"event": "tra')
    shutil.rmtree(exp / "results")
    markdown, text = report(exp)
    assert [line.partition(":")[0] for line in missing(markdown)] == ["log.jsonl", "log.jsonl", "results"]
    assert set(Page(text).figures) == {"loss", "regression", "rate"}


def test_layers_of_an_unfinished_run_are_those_of_the_last_validation(experiments):
    exp = experiments / "exp" / "distilmos"
    lines = (exp / "log.jsonl").read_text().splitlines(keepends=True)
    (exp / "log.jsonl").write_text("".join(lines[:-5]))
    markdown, text = report(exp)
    captions = Page(text).figures
    assert all("350" in captions[f"{key}-end"] for key in ("layer_weights", "token_accuracy"))
    assert "LCC 0.951" not in markdown + text  # dev result of the final model


def test_restarts_are_listed_and_change_no_figure(experiments):
    exp = experiments / "exp" / "sslmos"
    plain = report(exp)[1]
    lines = (exp / "log.jsonl").read_text().splitlines(keepends=True)
    for place, step in ((20, 150), (12, 100)):
        lines.insert(place, json.dumps({"event": "resume", "step": step, "time": "2026-01-05T13:00:00+00:00"}) + "\n")
    (exp / "log.jsonl").write_text("".join(lines))
    markdown, continued = report(exp)
    assert "`100, 150`" in markdown
    assert re.findall(r"<svg.*?</svg>", continued, re.DOTALL) == re.findall(r"<svg.*?</svg>", plain, re.DOTALL)


def test_names_from_files_are_text_not_markup(experiments):
    exp = experiments / "exp" / "distilmos"
    table = exp / "results" / "test" / "scored.tsv"
    table.write_text(table.read_text().replace("\techo\t", "\t_$x$ <b>|&amp;\t"))
    (exp / "config.yaml").write_text("model: '<script>alert(1)</script>'\n")
    markdown, text = report(exp)
    Page(text)
    assert "_$x$ &lt;b&gt;|&amp;amp;" in text and "<script>" not in text
    assert "_$x$ <b>\\|&amp;" in markdown


def test_unrated_set_is_listed_without_scores(experiments):
    exp = experiments / "exp" / "sslmos"
    results = exp / "results" / "test_real"
    (results / "scored.tsv").unlink()
    (results / "metrics.json").write_text(
        json.dumps({"set": "test_real", "notes": "", "counts": {"utterances": 72, "systems": 12}})
    )
    markdown, text = report(exp)
    shown = re.search(r'<section>\n<h2 id="set2">(.*?)</section>', text, re.DOTALL).group(1)
    assert "<table" not in shown and "<svg" not in shown and "72" in shown and "12" in shown
    assert tables(section(markdown, "test_real")) == [] and "72" in section(markdown, "test_real")


def test_unrated_set_of_a_sweep_is_listed_without_scores(experiments):
    runs = [
        shutil.copytree(experiments / "exp" / model, experiments / "sweep" / f"{model}_seed1")
        for model in ("distilmos", "sslmos")
    ]
    for run in runs:
        results = run / "results" / "test_real"
        counts = {"set": "test_real", "notes": "", "counts": {"utterances": 72, "systems": 12}}
        (results / "metrics.json").write_text(json.dumps(counts))
    page = experiments / "sweep.md"
    options = ["--models", "distilmos", "sslmos", "--seeds", "1", "--out"]
    assert main(["gather", str(experiments / "sweep"), *options, str(page)]) == 0
    markdown = page.read_text()
    assert tables(section(markdown, "test_real")) == [] and "72" in section(markdown, "test_real")
    scores, differences = tables(section(markdown, "test"))
    assert [row[:2] for row in scores[1:]] == [["distilmos", "1"], ["sslmos", "1"]]
    assert [row[1:3] for row in differences[1:]] == [[level, name] for level in LEVELS for name in ("LCC", "SRCC")]


def test_undefined_scores_are_dashes(experiments):
    exp = experiments / "exp" / "sslmos"
    path = exp / "results" / "test" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["system"]["LCC"] = {"value": None, "low": None, "high": None, "undefined": 200}
    path.write_text(json.dumps(metrics))
    markdown, text = report(exp)
    assert "<b>-</b><small></small>" in text
    assert [row[0] for row in tables(section(markdown, "test"))[0] if "-" in row] == ["system"]


def test_error_rows_agree_with_a_hand_calculation_and_start_with_the_worst():
    rows = [
        Scored("u1", "a", "", 3.0, 3.5),
        Scored("u2", "a", "", 3.0, 2.5),
        Scored("u3", "b", "", 2.0, 4.0),
        Scored("u4", "b", "", 2.0, 3.0),
    ]
    worst, best = error_rows(rows, "system")
    assert worst == {"name": "b", "utterances": 2, "bias": 1.5, "rmse": pytest.approx(math.sqrt(2.5))}
    assert best == {"name": "a", "utterances": 2, "bias": 0.0, "rmse": pytest.approx(0.5)}


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("log.jsonl", '{"event": "start", "step": 0}\nnonsense\n{"event": "end"}\n', ":2"),
        ("config.yaml", "a: [1\n", ""),
        ("config.yaml", "- 1\n", ""),
        ("results/test/metrics.json", "{}", ""),
    ],
)
def test_damaged_files_are_named(experiments, path, text, line):
    exp = experiments / "exp" / "distilmos"
    (exp / path).write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(str(exp / path))}{line}: "):
        write_report(exp)
    assert not (exp / "report.html").exists()


def test_directories_with_nothing_to_report_are_refused(tmp_path):
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'absent'))}: "):
        write_report(tmp_path / "absent")
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))}: "):
        write_report(tmp_path)
    (tmp_path / "config.yaml").write_text("model: sslmos\n")
    (tmp_path / "quality.json").write_text('{"layers": []}')
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'quality.json'))}: "):
        write_report(tmp_path, tmp_path)


def test_chance_level_without_kmeans_directory_comes_from_the_final_model(experiments):
    exp = experiments / "exp" / "distilmos"
    (exp / "final").mkdir()
    (exp / "final" / "config.yaml").write_text("model: {model: distilmos}\nclusters: 50\n")
    assert "1/50" in report(exp)[1]


PUBLISHED = """set\tlevel\tmetric\tvalue\tmodel\ttrained_on\tsource
test\tutterance\tSRCC\t0.889\tA model\tBVCC\tA paper
somos_test\tnot stated\tLCC\t0.404\tA model\tBVCC\tA paper
test_real\tnot stated\tLCC\t0.5\tA model\tBVCC\tA paper
"""


def test_overview_shows_missing_sets_and_published_scores(experiments):
    exp = experiments / "exp" / "distilmos"
    table = experiments / "published.tsv"
    table.write_text(PUBLISHED)
    command = ["report", str(exp), "--published", str(table)]
    for name in ("test", "hablamos"):
        command += ["--set", name]
    assert main(command) == 0
    values = {name: read_metrics(exp / "results" / name) for name in ("test", "test_real")}

    def value(name, level, metric):
        return f"{values[name][level][metric]['value']:.3f}"

    def scores(name):
        return [value(name, level, metric) for level in LEVELS for metric in METRICS]

    markdown = (exp / "RESULTS.md").read_text()
    overview, published = (table[1:] for table in tables(markdown)[:2])
    assert [row[1:] for row in overview] == [scores("test"), [NOT_RUN] * 8, scores("test_real")]
    labels = [row[0] for row in overview]
    assert labels[0].startswith("test ") and SIMULATED in labels[0] and labels[1:] == ["hablamos", "test_real"]
    both = f"{value('test_real', 'utterance', 'LCC')} / {value('test_real', 'system', 'LCC')}"
    assert [row[1:] for row in published] == [
        ["test", "utterance", "SRCC", "0.889", value("test", "utterance", "SRCC")],
        ["somos_test", "not stated", "LCC", "0.404", NOT_RUN],
        ["test_real", "not stated", "LCC", "0.500", both],
    ]
    assert all(part in row[0] for row in published for part in ("A model", "BVCC", "A paper"))
    page = Page((exp / "report.html").read_text())
    for rows, shown in zip((overview, published), page.tables, strict=False):
        assert " ".join(" ".join(map(" ".join, rows)).split()) in " ".join(shown.split())
    assert page.ids[0] == "overview"
    # Notes that hold for all sets are shown once.
    shutil.rmtree(exp / "results" / "test_real")
    assert main(command) == 0
    before, table, _ = (exp / "RESULTS.md").read_text().split("\n## ")[1].partition("\n|")
    assert table and before.strip().endswith(SIMULATED)
    assert Page((exp / "report.html").read_text()).tables[0].count(SIMULATED) == 1


def test_faults_of_published_scores_are_named(experiments, capsys):
    table = experiments / "published.tsv"
    lines = ["test\tutterance\tPCC\t0.9\tm\tt\ts", "test\tsystem\tLCC\tabout 0.9\tm\tt\ts", "test\tsystem\tLCC"]
    table.write_text("\n".join([PUBLISHED.splitlines()[0], *lines]))
    assert main(["report", str(experiments / "exp" / "sslmos"), "--published", str(table)]) == 2
    faults = dict(re.findall(rf"{re.escape(str(table))}:(\d+): (.*)", capsys.readouterr().err))
    assert set(faults) == {"2", "3", "4"}
    assert "'PCC'" in faults["2"] and "'about 0.9'" in faults["3"]
    assert set(re.findall(r"\d+", faults["4"])) == {"3", "7"}
