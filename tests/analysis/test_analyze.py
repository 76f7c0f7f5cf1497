"""`distilmos analyze` on small trained models."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from helpers.pages import tables

from distilmos.analysis import similarity
from distilmos.cli import main
from distilmos.data.archive import load_array, read_scp
from distilmos.data.tables import read_table, write_table
from distilmos.errors import InputError
from distilmos.report.analysis import NAMES, write_analysis
from distilmos.report.page import write_report


def analyze(*arguments):
    return main(["analyze", *map(str, arguments), "--device", "cpu"])


def numbers(directory):
    """Return analysis.json without the entries that always differ between two analyses."""
    result = json.loads((directory / "analysis.json").read_text())
    return {key: value for key, value in result.items() if key not in ("time", "subject")}


def pictures(page):
    return re.findall(r"!\[[^]]+\]\((.+?)\)", page.read_text())


def test_a_distilmos_experiment(trained, capsys):
    exp = trained.experiment("distilmos")
    assert analyze(exp) == 0
    assert capsys.readouterr().out == f"{exp}/analysis/ANALYSIS.md\n"
    result = numbers(exp / "analysis")
    # The analysis finds the dev set and the k-means.
    assert result["data"] == [str(trained.raw("dev"))] or Path(result["data"][0]).samefile(trained.raw("dev"))
    assert Path(result["kmeans"]).samefile(trained.kmeans)
    assert (result["utterances"], result["model"], result["left_out"]) == (36, "distilmos", [])
    cka = np.array(result["similarity"])
    assert cka.shape == (trained.layers, trained.layers) and cka.min() > 0 and cka.max() < 1
    for row in result["tokens"]:
        assert row["after"]["agreement"] < row["before"]["agreement"] == 1
        assert row["chance"] < row["after"]["probe"] <= row["before"]["probe"] + 0.1
        assert row["before"]["explained_variance"] > row["after"]["explained_variance"]
    probes = {probe["name"]: probe for probe in result["probes"]}
    assert list(probes) == ["group", "speaker", "MOS"]
    assert (probes["group"]["classes"], probes["group"]["folds_of"]) == (2, "systems")
    assert (probes["speaker"]["classes"], probes["speaker"]["folds_of"]) == (3, "utterances")
    assert probes["speaker"]["chance"] == pytest.approx(1 / 3)
    assert max(row["before"]["accuracy"] for row in probes["speaker"]["layers"]) > 0.6
    assert set(probes["MOS"]["layers"][0]["after"]) == {"LCC", "SRCC"}


def test_tokens_of_the_frozen_encoder_are_those_of_stage_4(trained):
    """The share of the most frequent id over all frames is that of the archives."""
    assert analyze(trained.experiment("distilmos"), "--max-frames", 10**6) == 0
    result = numbers(trained.experiment("distilmos") / "analysis")
    for row in result["tokens"]:
        scp = read_scp(trained.root / "tokens" / "dev" / f"layer{row['layer']}.scp")
        ids = np.concatenate([load_array(location) for location in scp.values()])
        assert row["chance"] == pytest.approx(np.bincount(ids).max() / len(ids))
    assert result["frames"] == len(ids)


def test_an_encoder_that_was_not_fine_tuned_is_unchanged(trained):
    exp = trained.experiment("frozen")
    assert analyze(exp) == 0
    result = numbers(exp / "analysis")
    cka = np.array(result["similarity"])
    assert np.diag(cka) == pytest.approx(1) and cka == pytest.approx(cka.T)
    assert all(row["before"] == row["after"] for row in result["tokens"])
    assert all(row["before"] == row["after"] for probe in result["probes"] for row in probe["layers"])


def test_a_baseline_has_tokens_only_with_a_given_kmeans(trained):
    exp = trained.experiment("sslmos")
    assert analyze(exp) == 0
    result = numbers(exp / "analysis")
    assert result["tokens"] == [] and [line.partition(":")[0] for line in result["left_out"]] == ["tokens"]
    on_tokens = {"forgetting.svg", "fit.svg"}
    assert not on_tokens & set(pictures(exp / "analysis/ANALYSIS.md"))
    assert analyze(exp, "--kmeans", trained.kmeans) == 0
    assert on_tokens <= set(pictures(exp / "analysis/ANALYSIS.md"))
    assert len(numbers(exp / "analysis")["tokens"]) == trained.layers


def test_an_encoder_alone(trained, capsys):
    out = trained.root / "out"
    assert analyze("--ssl", trained.encoder, "--data", trained.raw("dev"), "--out", out) == 0
    result = numbers(out)
    assert result["model"] is None and np.diag(result["similarity"]) == pytest.approx(1)
    assert [set(row) for probe in result["probes"] for row in probe["layers"]] == [{"layer", "before"}] * 6
    assert analyze(trained.experiment("sslmos"), "--data", trained.raw("dev")) == 0
    both = numbers(trained.experiment("sslmos") / "analysis")
    for alone, pair in zip(result["probes"], both["probes"], strict=True):
        assert [row["before"] for row in alone["layers"]] == [row["before"] for row in pair["layers"]]
    page = (out / "ANALYSIS.md").read_text()
    assert NAMES["after"] not in page
    columns = [
        len(tables(text)[-1][0]) for text in (page, (trained.experiment("sslmos") / "analysis/ANALYSIS.md").read_text())
    ]
    assert columns == [1 + 4, 1 + 2 * 4]  # accuracy of two labels, LCC and SRCC of MOS


def test_the_encoder_of_a_model_directory(trained):
    exp = trained.experiment("sslmos")
    assert analyze("--ssl", exp / "final", "--data", trained.raw("dev"), "--out", trained.root / "out") == 0
    assert analyze(exp, "--data", trained.raw("dev")) == 0
    alone, pair = numbers(trained.root / "out"), numbers(exp / "analysis")
    assert alone["fingerprints"] == pair["fingerprints"][1:]
    for one, both in zip(alone["probes"], pair["probes"], strict=True):
        assert [row["before"] for row in one["layers"]] == [row["after"] for row in both["layers"]]


def test_an_encoder_predicts_unseen_systems_groups_and_sets(trained):
    out = trained.root / "out"
    command = ["--ssl", trained.encoder, "--data", trained.raw("dev"), "--out", out, "--max-frames", 100]
    assert analyze(*command) == 0
    alone = numbers(out)
    assert alone["utterances"] < 36  # the sample; the fit has all utterances
    assert [(row["kind"], row["conditions"], row["utterances"]) for row in alone["generalisation"]] == [
        ("conditions", 6, 36),
        ("group", 3, 18),
        ("group", 3, 18),
        ("groups", 6, 36),
    ]
    assert all(len(row["layers"]) == trained.layers for row in alone["generalisation"])
    assert analyze(*command, "--test-data", trained.raw("train")) == 0
    *same, on_train = numbers(out)["generalisation"]
    assert same == alone["generalisation"]
    assert (on_train["kind"], on_train["name"], on_train["utterances"]) == ("set", str(trained.raw("train")), 36)
    assert on_train["all"]["LCC"]["value"] > 0.5
    assert "generalisation.svg" in pictures(out / "ANALYSIS.md")
    renamed = shutil.copytree(trained.raw("train"), trained.root / "renamed")
    for path in (path for path in renamed.iterdir() if path.name not in ("wav.ark", "sys2group")):
        path.write_text(re.sub("^train", "dev", path.read_text(), flags=re.MULTILINE))
    assert set(read_table(renamed / "wav.scp")) == set(read_table(trained.raw("dev") / "wav.scp"))
    assert analyze(*command, "--test-data", trained.raw("train"), "--test-data", renamed) == 0
    *_, on_train, on_renamed = numbers(out)["generalisation"]
    assert on_renamed == on_train | {"name": str(renamed)}
    assert analyze(*command, "--test-data", trained.raw("train")) == 0
    header, row, *_ = tables((out / "ANALYSIS.md").read_text())[0]
    assert header[-1] == str(trained.raw("train")) and len(header) == 4
    assert row[-1].split()[0] == f"{on_train['all']['LCC']['value']:.3f}"


def test_damaged_scores_of_other_sets_are_refused(trained):
    out = trained.root / "out"
    assert analyze("--ssl", trained.encoder, "--data", trained.raw("dev"), "--out", out, "--max-frames", 100) == 0
    result = json.loads((out / "analysis.json").read_text())
    damaged = {
        "test_data": lambda result: result.update(test_data="raw/train"),
        "utterances": lambda result: result["generalisation"][0].pop("utterances"),
        "chosen": lambda result: result["generalisation"][0].update(chosen=[]),
        "SRCC": lambda result: result["generalisation"][1]["best"].pop("SRCC"),
        "high": lambda result: result["generalisation"][1]["layers"][0]["LCC"].update(high="x"),
        "generalisation": lambda result: result["generalisation"][1]["layers"].pop(),
    }
    for named, damage in damaged.items():
        faulty = copy.deepcopy(result)
        damage(faulty)
        (out / "analysis.json").write_text(json.dumps(faulty))
        with pytest.raises(InputError, match=f"^{re.escape(str(out / 'analysis.json'))}: .*{named}"):
            write_analysis(out, None)


def test_copies_of_a_system_are_one_condition(trained, tmp_path):
    data = shutil.copytree(trained.raw("dev"), tmp_path / "dev")
    write_table(data / "sys2cond", {"clip0": "clean", "noise0": "clean"})
    for directory, out in ((trained.raw("dev"), "apart"), (data, "together")):
        assert analyze("--ssl", trained.encoder, "--data", directory, "--out", trained.root / out) == 0
    apart, together = (numbers(trained.root / out) for out in ("apart", "together"))
    counts = [(row["name"], row["conditions"]) for row in together["generalisation"] if row["kind"] == "group"]
    assert counts == [("clip", 2), ("noise", 2)]
    assert together["generalisation"][0]["conditions"] == 5
    mos = [result["probes"][-1] for result in (apart, together)]
    assert mos[0]["name"] == mos[1]["name"] == "MOS" and mos[0]["layers"] != mos[1]["layers"]


def test_the_numbers_depend_on_the_seed(trained):
    command = [trained.experiment("distilmos"), "--max-frames", 300]
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert analyze(*command, "--out", trained.root / out, "--seed", seed) == 0
    first, again, other = (numbers(trained.root / out) for out in "abc")
    assert first == again and first["frames"] == 300
    assert first["similarity"] != other["similarity"] and first["probes"] != other["probes"]


def test_pairs_of_layers_that_do_not_fit_in_memory_are_compared_in_several_passes(trained, monkeypatch):
    command = [trained.experiment("distilmos"), "--out"]
    assert analyze(*command, trained.root / "one") == 0
    monkeypatch.setattr(similarity, "MAX_BYTES", 1)
    assert analyze(*command, trained.root / "many") == 0
    one, many = numbers(trained.root / "one"), numbers(trained.root / "many")
    assert np.array(many.pop("similarity")) == pytest.approx(np.array(one.pop("similarity")), rel=1e-9)
    assert one == many


def test_tables_of_labels_and_several_data_directories(trained):
    names = [u for part in ("train", "dev") for u in read_table(trained.raw(part) / "utt2spk")]
    levels = {u: f"level{int(u[-2:]) % 6 // 2}" for u in names[:-3]}
    write_table(trained.root / "utt2level", levels)
    write_table(trained.root / "utt2spk", {u: "same" if u < "dev10" else "other" for u in names})
    tables = [f"level={trained.root}/utt2level", f"speaker={trained.root}/utt2spk"]
    command = ["--data", trained.raw("train"), "--data", trained.raw("dev"), "--data", trained.raw("dev")]
    for table in tables:
        command += ["--labels", table]
    assert analyze(trained.experiment("distilmos"), *command) == 0
    result = numbers(trained.experiment("distilmos") / "analysis")
    probes = {probe["name"]: (probe["classes"], probe["utterances"]) for probe in result["probes"]}
    assert result["data"] == [str(trained.raw("train")), str(trained.raw("dev"))]
    assert probes == {"group": (2, 72), "level": (3, 69), "speaker": (2, 72), "MOS": (None, 72)}


def test_labels_and_mos_that_cannot_be_probed_are_listed(trained, tmp_path):
    data = shutil.copytree(trained.raw("dev"), tmp_path / "plain")
    for name in ("utt2mos", "utt2spk", "sys2group"):
        (data / name).unlink()
    write_table(data / "utt2sent", {u: u for u in read_table(data / "utt2sys")})
    assert analyze(trained.experiment("sslmos"), "--data", data) == 0
    result = numbers(trained.experiment("sslmos") / "analysis")
    assert result["probes"] == []
    assert [line.partition(":")[0] for line in result["left_out"]] == ["tokens", "sentence", "MOS"]
    assert " 36 " in result["left_out"][1]
    assert analyze(trained.experiment("sslmos"), "--data", data, "--data", trained.raw("train")) == 0
    result = numbers(trained.experiment("sslmos") / "analysis")
    assert [(probe["name"], probe["utterances"]) for probe in result["probes"]] == [("group", 36), ("speaker", 36)]
    assert result["left_out"][-1].startswith("MOS: ")


def test_the_page_shows_the_numbers_and_existing_figures(trained):
    exp = trained.experiment("distilmos")
    (exp / "analysis").mkdir()
    assert analyze(exp) == 0
    page = (exp / "analysis/ANALYSIS.md").read_text()
    result = numbers(exp / "analysis")
    names = pictures(exp / "analysis/ANALYSIS.md")
    assert names == [
        "similarity.svg",
        "forgetting.svg",
        "fit.svg",
        "probe1.svg",
        "probe2.svg",
        "probe3.svg",
        "token_accuracy.svg",
    ]
    for name in names:
        picture = ElementTree.parse(exp / "analysis" / name).getroot()
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    first = result["tokens"][0]
    cells = [first["before"]["probe"], first["after"]["probe"], first["after"]["agreement"], result["similarity"][0][0]]
    assert tables(page)[0][1] == ["1", *(f"{cell:.3f}" for cell in [*cells, first["chance"]])]
    speaker = result["probes"][1]["layers"][0]["after"]
    assert f"{speaker['accuracy']:.3f} ± {speaker['sd']:.3f}" in page


def test_the_report_shows_the_analysis(trained):
    exp = trained.experiment("distilmos")
    plain = [path.read_text() for path in write_report(exp)]
    assert "(analysis/" not in plain[0] and 'id="analysis"' not in plain[1]
    assert analyze(exp) == 0
    markdown, page = (path.read_text() for path in write_report(exp))
    for name in re.findall(r"!\[[^]]+\]\((analysis/.+?)\)", markdown):
        assert (exp / name).exists()
    assert markdown.count("(analysis/") == 6 and page.count("<svg") == plain[1].count("<svg") + 6
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "analysis" in ids
    titles = re.findall(r"^### (.+)", markdown, re.MULTILINE)
    assert len(titles) == 4 and titles == re.findall(r'<h3 class="part">(.+)</h3>', page)
    result = json.loads((exp / "analysis/analysis.json").read_text())
    older = {key: value for key, value in result.items() if key not in ("test_data", "generalisation")}
    (exp / "analysis/analysis.json").write_text(json.dumps(older))
    assert [path.read_text() for path in write_report(exp)] == [markdown, page]
    (exp / "analysis/analysis.json").write_text("{}")
    assert main(["report", str(exp)]) == 2


def test_the_notes_of_simulated_ratings_are_shown(trained, tmp_path):
    data = shutil.copytree(trained.raw("dev"), tmp_path / "dev")
    (data / "notes").write_text("The ratings are simulated.\n")
    exp = trained.experiment("sslmos")
    assert analyze(exp, "--data", data) == 0
    assert "The ratings are simulated." in (exp / "analysis/ANALYSIS.md").read_text()
    markdown, page = (path.read_text() for path in write_report(exp))
    assert "The ratings are simulated." in markdown
    assert page.count('<span class="notes">The ratings are simulated.</span></h3>') == 2


def test_constant_mos_has_no_correlation(trained, tmp_path):
    data = shutil.copytree(trained.raw("dev"), tmp_path / "dev")
    write_table(data / "utt2mos", dict.fromkeys(read_table(data / "utt2mos"), 3.0))
    exp = trained.experiment("sslmos")
    assert analyze(exp, "--data", data) == 0
    mos = next(probe for probe in numbers(exp / "analysis")["probes"] if probe["name"] == "MOS")
    assert all(row["after"] == {"LCC": None, "SRCC": None} for row in mos["layers"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "--ssl"),
        ("{exp} --ssl hubert_tiny", "--ssl"),
        ("--ssl hubert_tiny --data {dev}", "--out"),
        ("--ssl hubert_tiny --out o", "--data"),
        ("nowhere", "nowhere:"),
        ("{root}", "{root}/config.yaml:"),
        ("{exp} --data nowhere", "nowhere:"),
        ("{exp} --data {dev} --data {dev2}", "{dev2}/wav.scp: dev00"),
        ("{exp} --test-data {dev2}", "--ssl"),
        ("{alone} --test-data nowhere", "nowhere:"),
        ("{alone} --test-data {dev2}", "{dev2}/wav.scp: dev00"),
        ("{alone} --test-data {unrated}", "{unrated}/utt2mos"),
        ("{few} --test-data {train}", "{two}: 3"),
        ("{exp} --labels x=nowhere", "nowhere:"),
        ("{exp} --labels x={other}", "{other}:"),
        ("{exp} --labels x={single}", "x: 36"),
        ("{exp} --labels MOS={single}", "{single}: MOS"),
        ("{exp} --labels x={single} --labels x={other}", "--labels: x"),
        ("{exp} --kmeans nowhere", "nowhere/info.json:"),
        ("{exp} --kmeans {foreign}", "{foreign}"),
        ("{exp} --max-frames 1", "raw/dev: 1"),
        ("{wide}", "{wide}: num_layers 2 6 hubert_tiny"),
        ("{unfinished}", "{unfinished}: final/ model/"),
        ("{unlogged}", "{unlogged}/log.jsonl: --data"),
        ("{moved}", "{moved}/log.jsonl: raw/gone --data"),
    ],
)
def test_bad_usage_and_bad_input_exit_with_2_and_are_named(trained, words, named, capsys):
    root, exp = trained.root, trained.experiment("distilmos")
    places = {"root": root, "exp": exp, "dev": trained.raw("dev"), "dev2": root / "dev2"}
    shutil.copytree(trained.raw("dev"), root / "dev2")
    places["train"], places["two"] = trained.raw("train"), root / "two"
    places["unrated"] = shutil.copytree(trained.raw("train"), root / "unrated")
    (root / "unrated/utt2mos").unlink()
    shutil.copytree(trained.raw("dev"), root / "two")
    write_table(root / "two/sys2cond", {name: name[:-1] for name in set(read_table(root / "two/utt2sys").values())})
    for name, data in (("alone", trained.raw("dev")), ("few", root / "two")):
        places[name] = f"--ssl {trained.encoder} --out {root}/o --data {data}"
    for name, labels in (("other", {"x": "a"}), ("single", dict.fromkeys(read_table(root / "dev2/utt2spk"), "a"))):
        places[name] = root / name
        write_table(places[name], labels)
    places["foreign"] = shutil.copytree(trained.kmeans, root / "foreign")
    info = json.loads((root / "foreign/info.json").read_text())
    (root / "foreign/info.json").write_text(json.dumps(info | {"fingerprint": "0"}))
    for name in ("wide", "unfinished", "unlogged", "moved"):
        places[name] = shutil.copytree(exp, root / "exp" / name)
    settings = yaml.safe_load((exp / "config.yaml").read_text())
    (places["wide"] / "config.yaml").write_text(yaml.safe_dump(settings | {"ssl_model": "hubert_tiny"}))
    shutil.rmtree(places["unfinished"] / "final")
    (places["unlogged"] / "log.jsonl").unlink()
    log = (exp / "log.jsonl").read_text()
    (places["moved"] / "log.jsonl").write_text(log.replace("/raw/dev", "/raw/gone"))
    assert analyze(*words.format(**places).split()) == 2
    said = capsys.readouterr().err
    for part in named.format(**places).split():
        assert re.search(rf"(?<!\w){re.escape(part)}(?!\w)", said), part
    assert not (exp / "analysis").exists() and not (root / "o").exists()


@pytest.mark.parametrize("words", ["--max-frames 0", "--seed -1", "--labels x", "--labels =f", "--labels x="])
def test_invalid_option_values_are_named(words, capsys):
    option, value = words.split()
    with pytest.raises(SystemExit) as caught:
        analyze("e", option, value)
    assert caught.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert option in said and repr(value) in said
