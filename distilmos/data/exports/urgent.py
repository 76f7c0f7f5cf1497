"""JSON lines of the URGENT 2026 challenge, track 2 (https://github.com/urgent-challenge/urgent2026_challenge_track2).

A line has the fields that its scripts/data/csv2jsonl.py writes: `audio_path`, `system_id`, `sample_id`, `duration`,
`sr`, and, if rated, `metrics` with `mos`, the mean score. Further metrics are outputs of other models and not imported.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from distilmos.data.exports.rows import Export, Rating
from distilmos.data.schema import Scale
from distilmos.data.tables import parse_json, read_lines
from distilmos.errors import InputError


def read_urgent(path: Path, scale: Scale, faults: list[str]) -> Export:
    """Read a list; see `Reader`."""
    export = Export()
    others: Counter[str] = Counter()
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            item = parse_json(line, path, dict[str, Any], number)
            audio, system, metrics = (item.get(name) for name in ("audio_path", "system_id", "metrics"))
            if not (isinstance(audio, str) and audio and isinstance(metrics, dict) and "mos" in metrics):
                raise InputError(f"{where}: expected audio_path, system_id and metrics with mos, found {sorted(item)}")
            value = metrics["mos"]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{where}: mos {value!r} is not a number")
            try:
                value = scale.score(str(value))
            except InputError as error:
                raise InputError(f"{where}: mos {error}") from None
        except InputError as error:
            faults.append(str(error))
            continue
        others.update(name for name in metrics if name != "mos")
        export.ratings.append(Rating(where, audio, value, None, "" if system is None else str(system)))
    export.remarks += [f"{path}: {name} of {count} lines is not a rating" for name, count in sorted(others.items())]
    return export
