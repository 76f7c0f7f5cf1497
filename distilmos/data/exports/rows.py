"""The content of the export of a listening test, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from distilmos.data.schema import MOS, Control, Scale


@dataclass(frozen=True)
class Rating:
    """One rating, or the mean of the ratings of a stimulus.

    Attributes:
        where: the start of a fault: `file:line`, or `file: test set N`, from 1, for BeaqleJS, whose lines mean nothing.
        stimulus: path, URL or name of what was rated.
        score: the rating, on the scale.
        listener: who gave it; None for a mean.
        system: the system under test; empty if the export does not name it.
        target: what was rated, if listeners rated several qualities: MOS or a further target.
        votes: standard deviation and number of the ratings of a mean, if known.
        sentence: what all stimuli of a trial of MUSHRA are versions of: the trial. Empty for other tests.
    """

    where: str
    stimulus: str
    score: float
    listener: str | None
    system: str = ""
    target: str = MOS
    votes: tuple[float, int] | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Answer:
    """The answer of a listener to a control question."""

    listener: str
    control: Control


@dataclass
class Export:
    """What an export holds.

    Attributes:
        ratings: in the order of the export.
        answers: answers to control questions, except to those that are stimuli of `ratings`.
        remarks: one line of text for each thing that was left out.
    """

    ratings: list[Rating] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


# Reads an export whose ratings are on a scale; adds a line of text, with file and line, to the list for each fault.
Reader = Callable[[Path, Scale, list[str]], Export]


def word(text: str) -> str:
    """Return a name as one word: white space becomes `_`."""
    return "_".join(text.split())
