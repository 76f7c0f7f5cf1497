"""`distilmos plan`: what it predicts is what the stages then take."""

from __future__ import annotations

import json
import re

from distilmos.cli import main
from distilmos.data.tables import read_floats
from distilmos.ssl.load import load_ssl


def test_amounts_are_those_of_the_stages(corpus, tmp_path, capsys) -> None:
    arguments = corpus.arguments(tmp_path / "exp" / "planned", "max_steps=8", "num_workers=0")
    config = arguments[arguments.index("--config") + 1]
    command = ["plan", "--config", config, "--set", "max_steps=8", "--device", "cpu", "--max-frames", "500"]
    command += ["--train", str(corpus.raw("train")), "--dev", str(corpus.raw("dev")), "--test", str(corpus.raw("dev"))]
    assert main([*command, "--clusters", "8", "--json", str(tmp_path / "plan.json")]) == 0
    said = capsys.readouterr().out
    for stage in json.loads((tmp_path / "plan.json").read_text())[1:]:
        assert 0.1 < stage["seconds"] < 600 and 1e4 < stage["memory"] < 2e10, stage
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    disk = {row[0]: float(row[5].removesuffix(" MB")) * 1e6 for row in rows if row[5].endswith("MB")}

    def size(directory, pattern: str) -> int:
        return sum(path.stat().st_size for path in directory.glob(pattern))

    raw = size(corpus.raw("train"), "wav.ark") + 2 * size(corpus.raw("dev"), "wav.ark")
    assert abs(disk["1 audio"] - raw) < 0.1e6
    assert abs(disk["2 features"] - size(corpus.root / "feats", "*.ark")) < 0.1e6
    tokens = sum(size(corpus.tokens(name), "*.ark") for name in ("train", "dev"))
    assert abs(disk["4 tokens"] - tokens) < 0.1e6
    assert main(arguments) == 0
    checkpoints = size(tmp_path / "exp" / "planned", "checkpoints/*") + size(tmp_path / "exp" / "planned", "final/*")
    assert abs(disk["5 training"] - checkpoints) < 0.15e6
    frames = dict(re.findall(r"(train|dev) ([0-9,]+)", said.splitlines()[0]))
    count = load_ssl(corpus.encoder).config.num_frames
    for name, text in frames.items():
        durations = read_floats(corpus.raw(name) / "utt2dur").values()
        assert int(text.replace(",", "")) == sum(count(round(seconds * 16000)) for seconds in durations)
    capsys.readouterr()

    stages = {stage["stage"]: stage for stage in json.loads((tmp_path / "plan.json").read_text())}
    # Spectra alone need no encoder, which takes nearly all of what DistilMOS does.
    assert (
        main([*command, "--set", "model=spectral", "--set", "spectral_dim=4", "--json", str(tmp_path / "s.json")]) == 0
    )
    assert str(corpus.encoder) not in capsys.readouterr().out
    for stage in json.loads((tmp_path / "s.json").read_text()):
        if stage["flops"]:
            assert stage["flops"] < 0.5 * stages[stage["stage"]]["flops"]

    # The baseline has no tokens to make.
    assert main([*command, "--set", "model=sslmos", "--set", "token_weight=0"]) == 0
    said = capsys.readouterr().out
    assert "| 5 training" in said
    assert "| 2 features" not in said
