"""A model on the scale of a listening test: `calibrate`, and `predict --calibrated`."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
from helpers.pages import tables

import distilmos
from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.schema import Scale, target_table
from distilmos.data.tables import read_floats
from distilmos.errors import InputError
from distilmos.model.directory import find_model

MUSHRA = Scale(0, 100, "MUSHRA")


@pytest.fixture
def recordings(tmp_path):
    """Return 24 recordings of noise and tones, which the model scores differently."""
    generator = np.random.default_rng(3)
    paths = []
    for number in range(24):
        tone = 0.3 * np.sin(2 * np.pi * (80 + 60 * number) * np.arange(8000) / 16000)
        paths.append(tmp_path / "wavs" / f"u{number:02d}.wav")
        paths[-1].parent.mkdir(exist_ok=True)
        soundfile.write(paths[-1], tone + 0.01 * number * generator.standard_normal(8000), 16000)
    return paths


@pytest.fixture
def rate(tmp_path, model_dir, recordings):
    """Return a function that writes a data directory whose ratings are a function of the model's scores."""
    scores = np.array([score.mos for score in distilmos.load(model_dir, device="cpu").predict(recordings)])

    def write(function, name="panel", scales=(MUSHRA,), count=24):
        ratings = function(scores)[:count]
        rated = zip(recordings, ratings, strict=False)
        utterances = [Utterance(path.stem, path, "s", mos=float(rating)) for path, rating in rated]
        write_data_dir(tmp_path / "data" / name, utterances, scales=scales)
        return tmp_path / "data" / name, ratings

    return write


def line(scores):
    return 50 + 40 * (scores - scores.mean()) / np.ptp(scores)


def noisy(scores):
    return line(scores) + 9 * np.sin(5 * np.arange(scores.size))


def predict(model, recordings, out, *options):
    assert main(["predict", *map(str, recordings), "--model", str(model), "--out", str(out), *options]) == 0
    with out.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_calibrated_scores_are_on_the_scale_of_the_test(tmp_path, model_dir, recordings, rate, capsys):
    data, ratings = rate(line)
    assert main(["calibrate", str(model_dir), "--data", str(data)]) == 0
    ((header, without, fitted),) = tables(capsys.readouterr().out)
    assert header == ["target", "mapping", "RMSE", "LCC", "SRCC", "KTAU"]
    assert without[:2] == ["MOS", "none"] and float(without[2]) > 1
    assert fitted == ["MOS", "first order", "0.000", "1.000", "1.000", "1.000"]
    rows = predict(model_dir, recordings, tmp_path / "out.csv", "--calibrated", "panel")
    assert [float(row["mos"]) for row in rows] == pytest.approx(ratings, abs=0.01)
    assert {row["calibrated"] for row in rows} == {"panel"}
    assert list(rows[0]) == ["utterance", "mos", "calibrated", "seconds", "error", "model"]
    for column in (*rows[0], "novelty"):  # no target may take its place
        with pytest.raises(InputError, match=column):
            target_table(column)
    assert "panel" in capsys.readouterr().err
    assert "calibrated" not in predict(model_dir, recordings, tmp_path / "plain.csv")[0]
    plain, calibrated = (
        distilmos.load(model_dir, device="cpu", calibrated=name).predict(recordings[:2]) for name in (None, "panel")
    )
    slope = (calibrated[1].mos - calibrated[0].mos) / (plain[1].mos - plain[0].mos)
    frames = calibrated[0].mos + slope * (plain[0].frame_mos - plain[0].mos)  # a line maps frames as it maps scores
    assert calibrated[0].frame_mos == pytest.approx(frames, abs=0.01)


def test_tables_json_lines_and_python_have_the_same_scores(tmp_path, model_dir, recordings, rate):
    data, _ = rate(noisy)
    assert main(["calibrate", str(model_dir), "--data", str(data), "--name", "lab-1", "--order", "3"]) == 0
    predictor = distilmos.load(model_dir, device="cpu", calibrated="lab-1")
    scores = predictor.predict(recordings)
    expected = [score.mos for score in scores]
    for score in scores:
        assert (score.calibrated, score.scale) == ("lab-1", Scale(0, 100, "MOS"))
        assert score.mos == pytest.approx(float(score.frame_mos.mean(dtype=np.float64)), abs=1e-4)
    rows = [score.mos for score in distilmos.load(model_dir, device="cpu").predict(recordings)]
    assert np.array_equal(np.argsort(rows), np.argsort(expected))  # the mapping rises here
    options = ["--model", str(model_dir), "--calibrated", "lab-1"]
    assert main(["predict", str(data), *options, "--out", str(tmp_path / "results" / "utt2mos")]) == 0
    assert list(read_floats(tmp_path / "results" / "utt2mos").values()) == pytest.approx(expected, abs=1e-3)
    assert (tmp_path / "results" / "scale").read_text() == "0 100 MOS\n"
    assert main(["predict", *map(str, recordings), *options, "--out", str(tmp_path / "out.jsonl")]) == 0
    lines = [json.loads(each) for each in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [each["mos"] for each in lines] == pytest.approx(expected, abs=1e-3)
    assert {each["calibrated"] for each in lines} == {"lab-1"}


def test_a_third_order_mapping_fits_the_data_better_and_never_falls(tmp_path, model_dir, rate, capsys):
    data, _ = rate(lambda scores: 20 + 60 * ((scores - scores.min()) / np.ptp(scores)) ** 3)
    errors = {}
    for order in ("1", "3"):
        assert main(["calibrate", str(model_dir), "--data", str(data), "--order", order]) == 0
        ((_, _, row),) = tables(capsys.readouterr().out)
        errors[order] = float(row[2])
    assert errors["3"] < 0.2 * errors["1"]
    (only,) = json.loads((model_dir / "calibrations.json").read_text())  # the second replaced the first
    assert (only["name"], only["utterances"], len(only["targets"][0]["coefficients"])) == ("panel", 24, 4)


@pytest.mark.parametrize(
    ("function", "count", "order"),
    [(line, 9, "1"), (line, 19, "3"), (lambda scores: 100 - line(scores), 24, "1")],
    ids=["9 ratings", "19 ratings for third order", "falling"],
)
def test_ratings_that_cannot_give_a_mapping_are_refused(model_dir, rate, function, count, order, capsys):
    data, _ = rate(function, count=count)
    assert main(["calibrate", str(model_dir), "--data", str(data), "--order", order]) == 2
    assert f"error: {data}" in capsys.readouterr().err
    assert not (model_dir / "calibrations.json").exists()


def test_a_set_without_ratings_and_names_that_do_not_fit_are_refused(tmp_path, model_dir, rate, capsys):
    data, _ = rate(line)
    arguments = ["calibrate", str(model_dir), "--data", str(data), "--name"]
    assert main([*arguments, "a/b"]) == 2
    (data / "utt2mos").unlink()
    capsys.readouterr()
    assert main(["calibrate", str(model_dir), "--data", str(data)]) == 2
    assert f"{data / 'utt2mos'}: " in capsys.readouterr().err
    for other in ("spectral_voip", str(tmp_path / "nothing")):
        assert main(["calibrate", other, "--data", str(data)]) == 2
        assert f"error: {other}: " in capsys.readouterr().err
    assert not (model_dir / "calibrations.json").exists()


def test_a_calibration_belongs_to_one_model_and_excludes_other_scales(tmp_path, model_dir, recordings, rate, capsys):
    data, _ = rate(line)
    assert main(["calibrate", str(model_dir), "--data", str(data)]) == 0
    other = shutil.copytree(find_model("spectral_voip"), tmp_path / "other")
    shutil.copy(model_dir / "calibrations.json", other)
    capsys.readouterr()
    predict_one = ["predict", str(recordings[0]), "--calibrated"]
    for model, name in ((other, "panel"), (model_dir, "nothing")):
        assert main([*predict_one, name, "--model", str(model)]) == 2
        assert f"error: {model / 'calibrations.json'}: " in capsys.readouterr().err
    assert main([*predict_one, "panel", "--model", str(model_dir), "--scale", "1", "5"]) == 2
    with pytest.raises(InputError):
        distilmos.load(model_dir, device="cpu", calibrated="panel", scale=(1, 5))
    (stored,) = json.loads((model_dir / "calibrations.json").read_text())
    falling = stored["targets"][0] | {"coefficients": [50.0, -1.0]}
    for fault in ({"targets": [falling]}, {"utterances": "many"}):
        (model_dir / "calibrations.json").write_text(json.dumps([stored | fault]))
        assert main([*predict_one, "panel", "--model", str(model_dir)]) == 2
        assert f"{model_dir / 'calibrations.json'}: " in capsys.readouterr().err
    broken = (model_dir / "calibrations.json").read_bytes()
    assert main(["calibrate", str(model_dir), "--data", str(data)]) == 2
    assert (model_dir / "calibrations.json").read_bytes() == broken


def test_export_carries_calibrations(tmp_path, model_dir, recordings, rate):
    data, ratings = rate(line)
    assert main(["calibrate", str(model_dir), "--data", str(data)]) == 0
    (model_dir.parent / "config.yaml").write_text("model: distilmos\n")
    for name, half in (("whole", []), ("half", ["--half"])):
        assert main(["export", str(model_dir.parent), "--out", str(tmp_path / name), *half]) == 0
        rows = predict(tmp_path / name, recordings, tmp_path / f"{name}.csv", "--calibrated", "panel")
        assert [float(row["mos"]) for row in rows] == pytest.approx(ratings, abs=2)
