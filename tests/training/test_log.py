"""log.jsonl with a damaged record: the report names its line, and a run that continues keeps only whole events."""

from __future__ import annotations

import json
import re

import pytest

from distilmos.errors import InputError
from distilmos.report.experiment import read_experiment
from distilmos.training.monitor import Monitor

TRAIN = {"event": "train", "step": 10, "loss": 1.0, "lr_encoder": 1e-4, "lr_head": 1e-3}
DAMAGED = {
    "cut": ('{"event": "train", "st', ""),
    "not an object": ("[5]", ""),
    "no step": ({"event": "train"}, "step"),
    "a step that is text": ({**TRAIN, "step": "ten"}, "step"),
    "a step below 0": ({**TRAIN, "step": -1}, "step"),
    "a loss that is a list": ({**TRAIN, "loss": [7]}, "loss"),
    "an infinite loss": (json.dumps({**TRAIN, "loss": 9}).replace("9", "1e999"), "loss"),
    "an event without metrics": ({"event": "dev", "step": 10, "utterance": {"LCC": 0.5}}, "utterance"),
    "5000 digits": ('{"event": "train", "step": ' + "9" * 5000 + "}", ""),
}


@pytest.mark.parametrize(("record", "value"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_named_with_its_line(tmp_path, record, value):
    text = record if isinstance(record, str) else json.dumps(record)
    lines = [json.dumps({"event": "start", "step": 0}), text, json.dumps(TRAIN)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/log\.jsonl:2: (?s:.*){value}"):
        read_experiment(tmp_path)


def test_only_the_last_record_may_be_cut(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps(TRAIN) + '\n{"event": "train", "st')
    assert [event["step"] for event in read_experiment(tmp_path).train] == [10]


def test_a_log_that_is_shorter_than_at_the_checkpoint_is_not_continued(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps(TRAIN)[:30])
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/log\.jsonl: 30 .*\b100\b"):
        Monitor(tmp_path, 100, 10, 20)
    assert (tmp_path / "log.jsonl").stat().st_size == 30


def test_damaged_records_after_the_checkpoint_are_dropped(tmp_path):
    start = b'{"event": "start", "step": 0}\n'
    (tmp_path / "log.jsonl").write_bytes(start + b'\xff\xfe\n{"event": "resume", "step": 0}\n{"event": "resume", ')
    Monitor(tmp_path, len(start), 0, 20).close()
    assert (tmp_path / "log.jsonl").read_bytes() == start + b'{"event": "resume", "step": 0}\n'
