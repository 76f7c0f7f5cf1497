"""Scores as a file: written as they come to a journal, from which an interrupted run goes on, and whole at the end.

The journal `OUT.partial` has a line of JSON with what decides scores, and one for each recording in the order of the
inputs. The file itself (CSV, JSON lines or utt2mos, by its suffix) appears whole, when all recordings are scored.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from distilmos.data.tables import as_text, is_utf8, write_table
from distilmos.errors import InputError
from distilmos.files import atomic_path
from distilmos.inference.predict import Score

DECIMALS = 4  # of scores for people; more is noise


def record(score: Score) -> dict[str, Any]:
    """Return a score, without those of its frames, as plain JSON types."""
    if score.error:
        return {"utterance": score.utterance, "mos": None, "seconds": None, "error": score.error}
    return {"utterance": score.utterance, "mos": score.mos, "seconds": score.seconds, "error": None}


class Journal:
    """The scores of a run that has not ended."""

    def __init__(self, out: Path, identity: dict[str, Any], *, resume: bool) -> None:
        """Begin, or go on.

        Args:
            out: the file that will be written at the end.
            identity: what decides scores, such as the model.
            resume: go on from an interrupted run, if there is one.

        Raises:
            InputError: if `out` is a directory; if an interrupted run is there and `resume` is not set, or it was one
                of another identity.
        """
        if out.is_dir():
            raise InputError(f"{out}: a directory, not a file to write")
        self.out = out
        self._is_table = out.suffix not in (".csv", ".jsonl")
        self._admitted: set[str] = set()
        self.path = out.with_name(f"{out.name}.partial")
        self.done = 0
        out.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self._stream = self.path.open("w", encoding="utf-8")
            self._write({"identity": identity})
            return
        if not resume:
            raise InputError(f"{self.path}: an interrupted run: go on from it with --resume, or remove it")
        whole = 0  # bytes of complete lines: a kill may have cut the last one
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                if number == 0 and _parsed(self.path, line).get("identity") != identity:
                    raise InputError(f"{self.path}: an interrupted run with another model or other options; remove it")
                self.done = number
        os.truncate(self.path, whole)
        self._stream = self.path.open("a", encoding="utf-8")
        if whole == 0:
            self._write({"identity": identity})

    def names(self) -> Iterator[str]:
        """Yield the utterance ids of the scores that are there."""
        for values in self._records():
            yield values["utterance"]

    def admit(self, utterance: str) -> None:
        """Refuse a recording that the file cannot hold, before it is scored.

        Raises:
            InputError: if the file is a Kaldi table, and the id has white space, is not UTF-8 or is there already.
        """
        if not self._is_table:
            return
        if utterance in self._admitted:
            fault = f"{utterance} is there twice"
        elif len(utterance.split()) != 1 or not is_utf8(utterance):
            fault = f"{utterance!r} is no utterance id (UTF-8 text without white space)"
        else:
            self._admitted.add(utterance)
            return
        advice = "write .csv or .jsonl, or use a wav.scp"
        if self.done:
            advice += f"; to go on from what is scored, rename {self.path} to NAME.csv.partial, and --resume NAME.csv"
        raise InputError(f"{self.out}: a Kaldi table cannot hold this: {fault}; {advice}")

    def add(self, values: dict[str, Any]) -> None:
        """Append what `record` returned; it survives the end of this process."""
        self._write(values)
        self.done += 1

    def close(self) -> None:
        """Keep the journal for another run, if there is any score in it."""
        self._stream.close()
        if self.done == 0:
            self.path.unlink(missing_ok=True)

    def finish(self) -> int:
        """Write the file and remove the journal; return how many recordings could not be used."""
        self._stream.close()
        failed = sum(1 for values in self._records() if values["error"])
        suffix = self.out.suffix
        if suffix == ".csv":
            self._convert(_write_csv)
        elif suffix == ".jsonl":
            self._convert(_write_json_lines)
        else:
            scores = {values["utterance"]: values["mos"] for values in self._records() if not values["error"]}
            write_table(self.out, scores)
        self.path.unlink()
        return failed

    def _write(self, values: dict[str, Any]) -> None:
        self._stream.write(json.dumps(values) + "\n")
        self._stream.flush()

    def _records(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as stream:
            next(stream, None)
            for line in stream:
                yield _parsed(self.path, line)

    def _convert(self, write: Callable[[TextIO, Iterator[dict[str, Any]]], None]) -> None:
        with atomic_path(self.out) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            write(stream, self._records())


def _parsed(path: Path, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{path}: damaged; remove it and begin anew")
    return values


def _write_csv(stream: TextIO, records: Iterator[dict[str, Any]]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["utterance", "mos", "seconds", "error"])
    for values in records:
        numbers = ["" if values[key] is None else round(values[key], DECIMALS) for key in ("mos", "seconds")]
        writer.writerow([as_text(values["utterance"]), *numbers, as_text(values["error"] or "")])


def _write_json_lines(stream: TextIO, records: Iterator[dict[str, Any]]) -> None:
    for values in records:
        stream.write(json.dumps(values, ensure_ascii=True) + "\n")
