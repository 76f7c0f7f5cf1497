"""The harness of the benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"


def test_results_hold_the_figures_and_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import harness

    monkeypatch.setattr(harness, "HERE", tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    (tmp_path / "README.md").write_text("text\n<!-- results -->\n\nan older table\n")
    arguments = ["/a/tools/bench/waiting.py", "--speech", "/a/speech", "--checkpoint=../b/c.pt", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    report = harness.Report("waiting", "Waiting", "nothing")
    seconds = iter([2.0, 1.0, 6.0, 2.0])
    sides = [harness.Side(name, name, lambda: {"seconds": next(seconds)}) for name in ("theirs", "ours")]
    report.measure(sides, 2)
    report.goals.append(harness.Goal("twice as fast", "2.5 times", True))
    report.finish()
    written = json.loads((tmp_path / "results/waiting.json").read_text())
    assert written["command"] == "python tools/bench/waiting.py --speech speech --checkpoint=c.pt --repeats 2"
    assert report.ratio("ours") == [2.0, 3.0]
    assert "2.5 (2 to 3)" in (tmp_path / "results/waiting.txt").read_text()
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("text\n") and "| waiting " in page and "an older table" not in page
