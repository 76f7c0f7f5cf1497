import html.parser
import json
import math
import re
import shutil

import pytest

from distilmos.cli import main
from distilmos.errors import InputError
from distilmos.metrics import METRICS
from distilmos.report.page import error_rows, write_report
from distilmos.scoring.results import Scored, read_metrics

SIMULATED = "The ratings are simulated."


class Page(html.parser.HTMLParser):
    """Collects what the page refers to, its ids, the texts of its tables, and checks that elements nest."""

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self, text):
        super().__init__()
        self.references, self.ids, self.tables, self.open, self.headings = [], [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append("")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "table" in self.open:
            self.tables[-1] += data + " "
        if self.open and self.open[-1] in ("h2", "figcaption"):
            self.headings.append(data.strip())


def report(exp, kmeans=None):
    markdown, page = write_report(exp, kmeans)
    return markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


def test_report_of_a_complete_experiment(experiments, capsys):
    exp = experiments / "exp" / "distilmos"
    assert main(["report", str(exp), "--kmeans", str(experiments / "kmeans")]) == 0
    assert capsys.readouterr().out.split() == [str(exp / "RESULTS.md"), str(exp / "report.html")]
    text, markdown = (exp / "report.html").read_text(encoding="utf-8"), (exp / "RESULTS.md").read_text(encoding="utf-8")
    assert "not complete" not in text and "Missing" not in markdown
    page = Page(text)
    for expected in ("test", "test_real", "Regression loss", "Token cross-entropy, mean over layers (nats)"):
        assert expected in page.headings
    for expected in ("Learning rate", "Layer weight of the final model", "Token accuracy on dev of the final model"):
        assert expected in page.headings
    assert ">0.78</text>" in text
    final = f"utterance LCC 0.951, SRCC 0.942; system LCC 0.963, SRCC -. {SIMULATED}"
    assert f"<dt>Dev (final model)</dt><dd>{final}</dd>" in text
    assert f"- Dev (final model): `{final}`" in markdown
    assert "chance, 1/200" in text
    assert "best step" in text and "averaged" in text
    for known in ("0a1b2c3", "A CPU", "4,321,987", "dump/raw/train: 240 utterances, 0.28 h", "12 min 34 s"):
        assert known in text and known in markdown
    assert "distilmos train --config conf/distilmos.yaml --out 'exp/my run'" in markdown
    entry = read_metrics(exp / "results" / "test")["system"]["SRCC"]
    assert f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]" in markdown
    assert f"<b>{entry['value']:.3f}</b><small>[{entry['low']:.3f}, {entry['high']:.3f}]</small>" in text


def test_page_needs_no_other_file(experiments):
    _, text = report(experiments / "exp" / "distilmos", experiments / "kmeans")
    page = Page(text)
    assert page.references and all(reference.startswith("#") for reference in page.references)
    assert len(page.ids) == len(set(page.ids))
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<link|<!ENTITY", text)


def test_simulated_ratings_are_called_so_beside_every_table(experiments):
    markdown, text = report(experiments / "exp" / "distilmos", experiments / "kmeans")
    _, scores, groups, systems, real_scores, real_systems, kmeans = Page(text).tables
    assert all(SIMULATED in table for table in (scores, groups, systems))
    assert not any("simulated" in table for table in (real_scores, real_systems, kmeans))
    sections = markdown.split("\n## ")
    simulated = next(section for section in sections if section.startswith("test\n"))
    before_tables = re.findall(r"(?:^|\n)([^\n|]+)\n\n\|", simulated)
    assert len(before_tables) == 3 and all(SIMULATED in line for line in before_tables)
    for heading in ("Dev MSE", "Utterances", "Systems"):
        assert re.search(rf"<figcaption>{heading} <span class=\"notes\">{SIMULATED}", text)


def test_the_same_input_gives_the_same_bytes(experiments):
    exp = experiments / "exp" / "distilmos"
    first = report(exp, experiments / "kmeans")
    assert report(exp, experiments / "kmeans") == first


def test_a_baseline_has_no_token_and_layer_sections(experiments):
    markdown, text = report(experiments / "exp" / "sslmos")
    headings = Page(text).headings
    assert "Training" in headings and "Regression loss" in headings
    assert not [heading for heading in headings if re.search("token|layer|k-means", heading, re.IGNORECASE)]
    assert "not complete" not in text and "Missing" not in markdown


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        ("config.yaml", "config.yaml: the settings are not known"),
        ("log.jsonl", "log.jsonl: how the model was trained is not known"),
        ("results", "results: no scored test set"),
        ("results/test/metrics.json", "results/test: not scored"),
    ],
)
def test_what_is_missing_is_said(experiments, removed, missing):
    exp = experiments / "exp" / "distilmos"
    path = exp / removed
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    markdown, text = report(exp, experiments / "kmeans")
    assert missing in markdown
    assert f"<li>{missing}" in text


def test_token_training_without_kmeans_directory_says_so(experiments):
    markdown, _ = report(experiments / "exp" / "distilmos")
    assert "k-means quality: `distilmos report --kmeans DIR` adds it" in markdown


def test_an_unfinished_training_is_reported(experiments):
    exp = experiments / "exp" / "sslmos"
    lines = (exp / "log.jsonl").read_text().splitlines()
    (exp / "log.jsonl").write_text("\n".join(lines[:4]) + '\n{"event": "tra')
    shutil.rmtree(exp / "results")
    markdown, text = report(exp)
    assert "no validation yet" in markdown and "the training has not ended" in markdown
    assert Page(text).headings.count("Regression loss") == 1


def test_layers_of_a_training_that_has_not_ended_are_those_of_the_last_validation(experiments):
    exp = experiments / "exp" / "distilmos"
    lines = (exp / "log.jsonl").read_text().splitlines(keepends=True)
    (exp / "log.jsonl").write_text("".join(lines[:-5]))
    markdown, text = report(exp)
    assert {"Layer weight at step 350", "Token accuracy on dev at step 350"} <= set(Page(text).headings)
    assert "Dev (final model)" not in markdown + text


def test_restarts_are_named_and_change_no_figure(experiments):
    exp = experiments / "exp" / "sslmos"
    plain = report(exp)[1]
    lines = (exp / "log.jsonl").read_text().splitlines(keepends=True)
    for place, step in ((20, 150), (12, 100)):
        lines.insert(place, json.dumps({"event": "resume", "step": step, "time": "2026-01-05T13:00:00+00:00"}) + "\n")
    (exp / "log.jsonl").write_text("".join(lines))
    markdown, continued = report(exp)
    assert "- Continued after step: `100, 150`" in markdown
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
    assert "72 utterances, 12 systems. No ratings: nothing to score." in text
    assert "No ratings: nothing to score." in markdown


def test_unrated_set_of_a_sweep_is_listed_without_scores(experiments):
    trainings = [
        shutil.copytree(experiments / "exp" / model, experiments / "sweep" / f"{model}_seed1")
        for model in ("distilmos", "sslmos")
    ]
    for training in trainings:
        results = training / "results" / "test_real"
        counts = {"set": "test_real", "notes": "", "counts": {"utterances": 72, "systems": 12}}
        (results / "metrics.json").write_text(json.dumps(counts))
    page = experiments / "sweep.md"
    options = ["--models", "distilmos", "sslmos", "--seeds", "1", "--out"]
    assert main(["gather", str(experiments / "sweep"), *options, str(page)]) == 0
    parts = page.read_text().partition("## test_real\n")
    assert parts[2].strip() == "72 utterances, 12 systems.\n\nNo ratings: nothing to score."
    assert "Difference sslmos - distilmos" in parts[0] or "Difference distilmos - sslmos" in parts[0]


def test_undefined_scores_are_dashes(experiments):
    exp = experiments / "exp" / "sslmos"
    path = exp / "results" / "test" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["system"]["LCC"] = {"value": None, "low": None, "high": None, "undefined": 200}
    path.write_text(json.dumps(metrics))
    markdown, text = report(exp)
    assert "<b>-</b><small></small>" in text
    assert re.search(r"\| system .*\|\s+- \|", markdown)


def test_error_rows_are_by_hand_and_worst_first():
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
    ("path", "text", "message"),
    [
        ("log.jsonl", '{"event": "start", "step": 0}\nnonsense\n{"event": "end"}\n', "log.jsonl:2: not an event"),
        ("config.yaml", "a: [1\n", "config.yaml: not YAML"),
        ("config.yaml", "- 1\n", "config.yaml: not a mapping"),
        ("results/test/metrics.json", "{}", "metrics.json: not a metrics.json"),
    ],
)
def test_damaged_files_are_named(experiments, path, text, message):
    exp = experiments / "exp" / "distilmos"
    (exp / path).write_text(text)
    with pytest.raises(InputError, match=message):
        write_report(exp)
    assert not (exp / "report.html").exists()


def test_directories_with_nothing_to_report_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such directory"):
        write_report(tmp_path / "absent")
    with pytest.raises(InputError, match="nothing to report"):
        write_report(tmp_path)
    (tmp_path / "config.yaml").write_text("model: sslmos\n")
    (tmp_path / "quality.json").write_text('{"layers": []}')
    with pytest.raises(InputError, match=r"not a quality.json"):
        write_report(tmp_path, tmp_path)


def test_chance_level_without_kmeans_directory_comes_from_the_final_model(experiments):
    exp = experiments / "exp" / "distilmos"
    (exp / "final").mkdir()
    (exp / "final" / "config.yaml").write_text("model: {model: distilmos}\nclusters: 50\n")
    assert "chance, 1/50" in report(exp)[1]


PUBLISHED = """set\tlevel\tmetric\tvalue\tmodel\ttrained_on\tsource
test\tutterance\tSRCC\t0.889\tA model\tBVCC\tA paper
somos_test\tnot stated\tLCC\t0.404\tA model\tBVCC\tA paper
test_real\tnot stated\tLCC\t0.5\tA model\tBVCC\tA paper
"""


def test_overview_names_what_was_not_run(experiments):
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

    markdown = " ".join((exp / "RESULTS.md").read_text().split())
    page = Page((exp / "report.html").read_text())
    html = " ".join(" ".join(page.tables).split())
    assert "Overview" in page.headings
    whose = "A model, trained on BVCC (A paper)"
    rows = [
        [f"test ({SIMULATED})", *(value("test", level, m) for level in ("utterance", "system") for m in METRICS)],
        ["hablamos", *["not run"] * 8],
        [whose, "test", "utterance", "SRCC", "0.889", value("test", "utterance", "SRCC")],
        [whose, "somos_test", "not stated", "LCC", "0.404", "not run"],
    ]
    both = f"{value('test_real', 'utterance', 'LCC')} / {value('test_real', 'system', 'LCC')}"
    rows.append([whose, "test_real", "not stated", "LCC", "0.500", both])
    for row in rows:
        assert " ".join(f"| {' | '.join(row)} |".split()) in markdown
        assert " ".join(" ".join(row).split()) in html
    assert markdown.index("| test (") < markdown.index("| hablamos |") < markdown.index("| test_real |")
    # What holds for all of them is said once.
    shutil.rmtree(exp / "results" / "test_real")
    assert main(command) == 0
    assert f"## All test sets {SIMULATED} |" in " ".join((exp / "RESULTS.md").read_text().split())
    assert SIMULATED in Page((exp / "report.html").read_text()).tables[0]


def test_faults_of_published_figures_are_named(experiments, capsys):
    table = experiments / "published.tsv"
    lines = ["test\tutterance\tPCC\t0.9\tm\tt\ts", "test\tsystem\tLCC\tabout 0.9\tm\tt\ts", "test\tsystem\tLCC"]
    table.write_text("\n".join([PUBLISHED.splitlines()[0], *lines]))
    assert main(["report", str(experiments / "exp" / "sslmos"), "--published", str(table)]) == 2
    said = capsys.readouterr().err
    assert f"{table}:2: no level and metric 'utterance', 'PCC'" in said
    assert f"{table}:3: not a finite number: 'about 0.9'" in said
    assert f"{table}:4: 3 values instead of 7" in said
