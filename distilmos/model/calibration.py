"""Calibrations of a model: mappings of its scores to the scales of listening tests, kept in its directory.

calibrations.json is a list of them. It holds numbers and names only, and goes with the model to the hub and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from distilmos.data.schema import Scale
from distilmos.data.tables import read_json
from distilmos.errors import InputError
from distilmos.files import exclusive, write_json
from distilmos.mapping import MonotonicMap, is_monotonic
from distilmos.model.directory import CALIBRATIONS, ModelInfo

NAME = r"[A-Za-z0-9][\w.-]*"

Ends = tuple[FiniteFloat, FiniteFloat]


class CalibratedTarget(BaseModel):
    """The mapping of one target.

    Attributes:
        name: name of the target, as in the scales of the model.
        scale: lowest and highest score of the listening test.
        range: `lowest` and `highest` of the mapping, on the scale of the model.
        coefficients: of the mapping, see `MonotonicMap`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    scale: Ends
    range: Ends
    coefficients: Annotated[list[FiniteFloat], Field(min_length=2, max_length=4)]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        Scale(*self.scale, self.name)
        Scale(*self.range, self.name)
        if not is_monotonic(np.array(self.coefficients)):
            raise ValueError(f"the mapping of {self.name} falls")
        return self

    @property
    def map(self) -> MonotonicMap:
        """The mapping from the scale of the model to that of the listening test."""
        return MonotonicMap(*self.range, tuple(self.coefficients))

    def calibrate(self, frames: np.ndarray) -> np.ndarray:
        """Map the frame scores of a recording, (T,), so that their mean is the mapping of their mean.

        The mapping was fitted to scores of recordings, so it holds for the mean. Frames follow its tangent there; for a
        first-order mapping that is the mapping itself.
        """
        mean = frames.mean(dtype=np.float64)
        return np.asarray(self.map(mean) + self.map.slope(mean) * (frames - mean))


class Calibration(BaseModel):
    """A calibration of a model.

    Attributes:
        name: its name.
        model: hash of the file of the weights; see `weights_version`.
        data: name of the data directory.
        utterances: number of rated utterances.
        targets: the mapping of each target of the model, in its order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    model: str
    data: str
    utterances: int
    targets: Annotated[list[CalibratedTarget], Field(min_length=1)]

    @property
    def text(self) -> str:
        """The calibration as words: its name, and where it comes from."""
        order = len(self.targets[0].coefficients) - 1
        return f"calibrated with {self.name} (order {order}, {self.utterances} utterances of {self.data})"

    def scales(self, of_model: Sequence[Scale]) -> tuple[Scale, ...]:
        """Return the scales of the calibrated scores, from those of the model."""
        ends = (target.scale for target in self.targets)
        return tuple(
            replace(scale, lowest=low, highest=high) for scale, (low, high) in zip(of_model, ends, strict=True)
        )


def read_calibrations(directory: str | Path) -> list[Calibration]:
    """Return the calibrations in a model directory; none without the file.

    Raises:
        InputError: if the file is not one of calibrations.
    """
    path = Path(directory) / CALIBRATIONS
    return read_json(path, list[Calibration]) if path.exists() else []


def add_calibrations(directory: str | Path, calibrations: Sequence[Calibration]) -> None:
    """Add calibrations to a model directory, in place of older ones of the same names.

    Raises:
        InputError: if the present file is not one of calibrations; it then stays as it is.
    """
    path = Path(directory) / CALIBRATIONS
    with exclusive(path):
        names = {each.name for each in calibrations}
        kept = [each for each in read_calibrations(directory) if each.name not in names]
        write_json(path, [each.model_dump() for each in (*kept, *calibrations)])


def find_calibration(directory: str | Path, name: str, model: ModelInfo) -> Calibration:
    """Return a calibration of a model.

    Args:
        directory: of the model.
        name: of the calibration.
        model: what prediction knows of the model.

    Raises:
        InputError: if there is none of this name, or it was made for other weights or targets.
    """
    path = Path(directory) / CALIBRATIONS
    found = {each.name: each for each in read_calibrations(directory)}
    if name not in found:
        known = f"has only {', '.join(found)}" if found else "has none"
        raise InputError(f"{path}: no calibration {name!r}; the model {known}; `distilmos calibrate` makes one")
    calibration = found[name]
    targets = [target.name for target in calibration.targets]
    if calibration.model != model.weights or targets != [scale.name for scale in model.scales]:
        raise InputError(f"{path}: {name} was made for another model; run `distilmos calibrate` again")
    return calibration
