"""A damaged analysis.json is an error that names the place."""

from __future__ import annotations

import json
import re

import pytest
from fuzz.inputs import analyses

from distilmos.analysis.result import read_analysis
from distilmos.errors import InputError

GOOD = json.loads(analyses()[0]["analysis/analysis.json"])
TASK, ROW = GOOD["probes"][0], GOOD["probes"][0]["layers"][0]
DAMAGED = {
    "not an object": ([5], ""),
    "no similarity": ({key: value for key, value in GOOD.items() if key != "similarity"}, "similarity"),
    "similarity that is not square": ({**GOOD, "similarity": [[1.0, 0.5], [0.5]]}, "similarity"),
    "similarity of text": ({**GOOD, "similarity": [["x"]]}, "similarity: 0: 0"),
    "a missing layer of tokens": ({**GOOD, "tokens": GOOD["tokens"][:1]}, "tokens"),
    "a layer of text": ({**GOOD, "tokens": [{**GOOD["tokens"][0], "layer": "x"}]}, "tokens: 0: layer"),
    "no values after fine-tuning": (
        {**GOOD, "tokens": [{k: v for k, v in row.items() if k != "after"} for row in GOOD["tokens"]]},
        "after",
    ),
    "a missing layer of a probe": ({**GOOD, "probes": [{**TASK, "layers": TASK["layers"][:1]}]}, "probes"),
    "other measures": (
        {**GOOD, "probes": [{**TASK, "layers": [{**ROW, "before": {"LCC": 0.5}}, TASK["layers"][1]]}]},
        "speaker",
    ),
    "utterances of text": ({**GOOD, "utterances": "many"}, "utterances"),
}


@pytest.mark.parametrize(("content", "value"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_is_named(tmp_path, content, value):
    (tmp_path / "analysis.json").write_text(json.dumps(GOOD))
    assert read_analysis(tmp_path)["utterances"] == 4
    (tmp_path / "analysis.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/analysis\.json.*: .*{value}"):
        read_analysis(tmp_path)


def test_text_that_is_not_json_is_named_with_its_line(tmp_path):
    (tmp_path / "analysis.json").write_text('{\n"subject": }')
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/analysis\.json:2: "):
        read_analysis(tmp_path)
