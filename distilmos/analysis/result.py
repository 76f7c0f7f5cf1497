"""analysis.json: all numbers of an analysis, for whoever shows them.

    similarity  linear CKA, rows: frozen layers, columns: fine-tuned ones
    tokens      of each layer: `chance`, and `before` and `after` fine-tuning what `LayerTokens.result` says
    probes      of each label, and of MOS: counts, `chance`, and of each layer `before` and `after` what `probe` says
    left_out    a line for each thing that could not be done

An encoder alone has no `after`, and is compared with itself. The rest is how the numbers were made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distilmos.data.tables import read_lines
from distilmos.errors import InputError

DIRECTORY, RESULT = "analysis", "analysis.json"  # EXP/analysis/analysis.json
BEFORE, AFTER = "before", "after"
KEYS = (
    *("subject", "ssl", "model", "time", "commit", "hardware", "seed", "data", "notes", "kmeans", "utterances"),
    *("seconds", "frames", "held_out", "left_out", "similarity", "tokens", "probes"),
)


def read_analysis(directory: str | Path) -> dict[str, Any]:
    """Read analysis.json.

    Raises:
        InputError: if it is missing or damaged.
    """
    path = Path(directory) / RESULT
    try:
        result = json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    missing = [key for key in KEYS if not isinstance(result, dict) or key not in result]
    if missing:
        raise InputError(f"{path}: not of `distilmos analyze`: has no {', '.join(missing)}")
    return dict(result)
