"""log.jsonl: repeated steps appear once; restarts stay."""

from __future__ import annotations

import json

from distilmos.training.monitor import Monitor


def logged(directory):
    return [tuple(json.loads(line).values())[:2] for line in (directory / "log.jsonl").read_text().splitlines()]


def test_events_after_the_checkpoint_are_removed_except_resumes(tmp_path):
    first = Monitor(tmp_path, 0, 0, 10)
    first.event("start", 0, {})
    size = first.sync()
    first.event("end", 3, {})
    first.close()
    second = Monitor(tmp_path, size, 0, 10)
    second.event("resume", 0, {"time": "a"})
    second.event("end", 4, {})
    second.close()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"event": "resume", "st')  # killed while it wrote
    third = Monitor(tmp_path, size, 0, 10)
    third.event("resume", 0, {"time": "b"})
    end = third.sync()
    third.close()
    assert logged(tmp_path) == [("start", 0), ("resume", 0), ("resume", 0)]
    assert end == (tmp_path / "log.jsonl").stat().st_size
    Monitor(tmp_path, 0, 0, 10).close()
    assert logged(tmp_path) == []
