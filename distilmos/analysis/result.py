"""The format of analysis.json, which holds all numbers of an analysis.

    similarity  linear CKA; rows are frozen layers, columns are fine-tuned layers
    tokens      for each layer: `chance`, and the result of `LayerTokens.result` `before` and `after` fine-tuning
    rated       name of what utt2mos holds; missing, for MOS, in results of older versions
    probes      for each label and for the mean scores: counts, `chance`, and for each layer the result of `probe`
                `before` and `after` fine-tuning
    test_data       test sets of `generalisation`; missing in results of older versions
    generalisation  for an encoder alone, the result of `generalisation`; missing in results of older versions
    left_out    a line for each part that could not be computed

For an encoder alone there is no `after`, and `similarity` compares the encoder with itself. The other entries say how
the numbers were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from distilmos.data.tables import read_json

DIRECTORY, RESULT = "analysis", "analysis.json"  # EXP/analysis/analysis.json
BEFORE, AFTER = "before", "after"

Value = FiniteFloat | None  # None where a measure is not defined
Layer = Annotated[int, Field(ge=1, le=10000)]
_Rows = Field(min_length=1)


class Part(BaseModel):
    """A part of a result, of which only the declared fields are checked."""

    model_config = ConfigDict(extra="allow")


class _Tokens(Part):
    agreement: Value
    probe: Value
    inertia_per_frame: Value
    explained_variance: Value


class _TokenRow(Part):
    layer: Layer
    chance: Value
    before: _Tokens
    after: _Tokens | None = None


class _ProbeRow(Part):
    layer: Layer
    before: dict[str, Value]
    after: dict[str, Value] = {}


class _Probe(Part):
    name: str
    utterances: int
    classes: int | None
    chance: Value
    folds_of: str
    layers: Annotated[list[_ProbeRow], _Rows]


class _Interval(Part):
    value: Value
    low: Value
    high: Value


class _Scores(Part):
    LCC: _Interval
    SRCC: _Interval


class _LayerScores(_Scores):
    layer: Layer


class _Test(Part):
    kind: str
    name: str
    utterances: int
    conditions: int
    chosen: Annotated[list[Layer], _Rows]
    all: _Scores
    best: _Scores
    layers: Annotated[list[_LayerScores], _Rows]


class _Analysis(Part):
    subject: str
    ssl: str
    model: str | None
    time: str
    commit: str | None
    hardware: dict[str, str | int | None]
    seed: int
    data: list[str]
    rated: str = "MOS"
    notes: str
    kmeans: str | None
    utterances: int
    seconds: FiniteFloat
    frames: int
    held_out: int
    left_out: list[str]
    similarity: Annotated[list[list[Value]], _Rows]
    tokens: list[_TokenRow]
    probes: list[_Probe]
    test_data: list[str] = []
    generalisation: list[_Test] = []

    @model_validator(mode="after")
    def _same_layers(self) -> _Analysis:
        layers = list(range(1, len(self.similarity) + 1))
        if any(len(row) != len(layers) for row in self.similarity):
            raise ValueError("similarity: not square")
        tables: list[tuple[str, Sequence[_TokenRow | _ProbeRow | _LayerScores]]] = [
            *([("tokens", self.tokens)] if self.tokens else []),
            *(("probes", probe.layers) for probe in self.probes),
            *(("generalisation", test.layers) for test in self.generalisation),
        ]
        for name, rows in tables:
            if [row.layer for row in rows] != layers:
                raise ValueError(f"{name}: not one row for each of {len(layers)} layers")
        if self.model and any(row.after is None for row in self.tokens):
            raise ValueError(f"tokens: a layer has no {AFTER!r}")
        for probe in self.probes:
            if len({(frozenset(row.before), frozenset(row.after)) for row in probe.layers}) > 1:
                raise ValueError(f"probes: {probe.name}: the layers have different measures")
            if any(
                "accuracy" in values and "sd" not in values
                for row in probe.layers
                for values in (row.before, row.after)
            ):
                raise ValueError(f"probes: {probe.name}: accuracy without sd")
        return self


def read_analysis(directory: str | Path) -> dict[str, Any]:
    """Read analysis.json.

    Raises:
        InputError: if it is missing, or `distilmos analyze` has not written it.
    """
    result: _Analysis = read_json(Path(directory) / RESULT, _Analysis)
    return result.model_dump(exclude_unset=True)
