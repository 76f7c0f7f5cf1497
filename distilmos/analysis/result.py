"""The format of analysis.json, which holds all numbers of an analysis.

    similarity  linear CKA; rows are frozen layers, columns are fine-tuned layers
    tokens      for each layer: `chance`, and the result of `LayerTokens.result` `before` and `after` fine-tuning
    probes      for each label and for MOS: counts, `chance`, and for each layer the result of `probe` `before` and
                `after` fine-tuning
    test_data       test sets of `generalisation`; missing in results of older versions
    generalisation  for an encoder alone, the result of `generalisation`; missing in results of older versions
    left_out    a line for each part that could not be computed

For an encoder alone there is no `after`, and `similarity` compares the encoder with itself. The other entries say how
the numbers were made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilmos.data.tables import read_json
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
        InputError: if it is missing, or `distilmos analyze` has not written it.
    """
    path = Path(directory) / RESULT
    result = read_json(path)
    missing = [key for key in KEYS if not isinstance(result, dict) or key not in result]
    if missing:
        raise InputError(f"{path}: not written by `distilmos analyze`: has no {', '.join(missing)}")
    return dict(result)
