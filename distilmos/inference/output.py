"""Write scores to a file, by way of a journal from which an interrupted run continues.

The journal `OUT.partial` is JSON lines: first the settings that determine the scores, then one line per recording in
the order of the inputs, with size and time of its file: a file that has changed must be scored again. One process at a
time writes a journal. The file itself (CSV, JSON lines or utt2mos, by its suffix) is written when all are scored.
If OUT is a pipe, a device or an open descriptor, the journal is a temporary file, and the run cannot be continued.

Of N runs that share the inputs, number I has every Nth recording, from the Ith on. Its journal is OUT.IofN.partial, and
OUT.IofN when it is complete; `join` takes the recordings of all N to one journal, in the order of the inputs.

CSV and JSON lines have a column `mos`, or one for each target with its name; of calibrated scores also a column
`calibrated` with the name of the calibration; and `novelty` (see `Score`) if the model can tell. Their last column,
`model`, is name and version of the model. The table utt2mos holds the first target; further targets have tables
utt2TARGET beside it. Unless scores are MOS from 1 to 5, the file `scale` beside it says so. A table with another name
can hold a single target only.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from pydantic import BaseModel, FiniteFloat, InstanceOf, model_validator

from distilmos.data.datadir import write_scales
from distilmos.data.recordings import Recording
from distilmos.data.schema import FILES, MOS_SCALE, SCALE, Scale, find_table, scale_line, target_table
from distilmos.data.tables import as_text, is_utf8, parse_json, read_lines, write_table
from distilmos.errors import InputError, raise_faults
from distilmos.files import atomic_path, is_at, written_in_place
from distilmos.inference.predict import Score
from distilmos.model.directory import ModelInfo

UTT2MOS = "utt2mos"
DECIMALS = 4  # of scores in CSV; more is noise


def record(score: Score) -> dict[str, Any]:
    """Convert a score, without its frame scores, to plain JSON types."""
    result: dict[str, Any] = {"scores": dict(score.scores), "seconds": score.seconds, "error": None}
    if score.error:
        result = {"scores": None, "seconds": None, "error": score.error}
    novelty = score.novelty if math.isfinite(score.novelty) else None
    return {"utterance": score.utterance, **result, "novelty": novelty, "file": version(score.recording)}


def version(recording: Recording | None) -> list[int] | None:
    """Return size in bytes and time of modification in ns of the file of a recording; None for a pipe or no file."""
    if recording is None or recording.copy is not None:
        return None
    try:
        found = recording.path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


class _Record(BaseModel):
    """A line of a journal, as `record` returns it. Its strings may hold bytes of file names that are not UTF-8."""

    utterance: InstanceOf[str]
    scores: dict[str, FiniteFloat] | None
    seconds: FiniteFloat | None
    error: InstanceOf[str] | None
    novelty: FiniteFloat | None = None  # journals of older versions lack it
    file: list[int] | None

    @model_validator(mode="after")
    def _is_scored(self) -> _Record:
        if not self.error and (not self.scores or self.seconds is None):
            raise ValueError("neither a score nor an error")
        return self


@dataclass(frozen=True)
class Shard:
    """A share of the inputs: every `count`th recording, from recording `number` (counted from 1) on."""

    number: int
    count: int


def shard_path(out: Path, shard: Shard) -> Path:
    """Return the file of the scores of a complete shard."""
    return out.with_name(f"{out.name}.{shard.number}of{shard.count}")


class Journal:
    """The scores of an unfinished run."""

    def __init__(
        self,
        out: Path,
        scales: Sequence[Scale],
        model: ModelInfo,
        identity: dict[str, Any],
        *,
        resume: bool,
        calibrated: str = "",
        shard: Shard | None = None,
        joins: bool = False,
    ) -> None:
        """Start a run, or continue an interrupted one.

        Args:
            out: the file to write at the end.
            scales: the scale of each target.
            model: what prediction knows of the model.
            identity: the settings that determine the scores, such as the model.
            resume: whether to continue from an existing journal.
            calibrated: name of the calibration of the scores; empty without one.
            shard: the share of the inputs that this run scores; None for all.
            joins: whether `join` is to follow. Its journal has a name of its own, OUT.join.partial: OUT.partial may be
                that of an interrupted run.

        Raises:
            InputError: if `out` is a directory or can name no file; if it cannot hold all targets, or would replace the
                files of a data directory; if `resume` is set and `out` is not a regular file; if a journal or a
                complete shard exists and `resume` is not set or its identity differs; or if another process writes it.
        """
        in_place = written_in_place(out)
        if out.is_dir():
            raise InputError(f"{out}: is a directory; name a file")
        self.out = out
        self._scales = scales
        self._calibrated = {"calibrated": calibrated} if calibrated else {}
        self._model = model.label
        self._novelty = ["novelty"] if model.has_novelty else []
        self._is_table = out.suffix not in (".csv", ".jsonl")
        self._has_companions = self._is_table and out.name == UTT2MOS and not in_place
        if self._is_table and len(scales) > 1 and not self._has_companions:
            names = ", ".join(scale.name for scale in scales)
            raise InputError(f"{out}: cannot hold {names}; name a .csv or .jsonl file, or {UTT2MOS}")
        if self._is_table and (out.parent / "wav.scp").exists():
            if self._has_companions and tuple(scales) != (MOS_SCALE,):
                raise InputError(
                    f"{out}: {out.parent} is a data directory, whose scale would be replaced; name a file elsewhere"
                )
            if (out.name in FILES or find_table(out.name)) and out.exists():
                raise InputError(f"{out}: would be replaced, and is a file of a data directory; name a file elsewhere")
        self._admitted: set[str] = set()
        self._joined: list[Path] = []
        self._scratch = TemporaryDirectory() if in_place else None
        if self._scratch is not None and resume:
            raise InputError(f"{out}: is not a regular file; --resume needs one")
        directory = out.parent if self._scratch is None else Path(self._scratch.name)
        self._complete = shard_path(out, shard) if shard else None
        self.path = directory / _partial(out.with_name(f"{out.name}.join") if joins else self._complete or out).name
        self._identity = identity
        self.done = 0
        out.parent.mkdir(parents=True, exist_ok=True)
        earlier = [path for path in (self.path, self._complete) if path is not None and path.exists()]
        if earlier and not resume:
            raise InputError(f"{earlier[0]}: scores of an earlier run; continue it with --resume, or remove the file")
        if earlier and earlier[0] == self._complete:
            with self._complete.open("rb") as stream:
                self._require_same(self._complete, stream.readline())
            self._complete.replace(self.path)
        self._stream = _only_writer(self.path)
        try:
            whole = self._count_done()
        except InputError:
            self._stream.close()
            raise
        os.truncate(self.path, whole)
        if whole == 0:
            self._write({"identity": identity})

    def _count_done(self) -> int:
        """Count the scores in the journal; return the bytes of its complete lines: a kill may have cut the last one."""
        whole = 0
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                if number == 1:
                    self._require_same(self.path, line)
                self.done = number - 1
        return whole

    def _require_same(self, path: Path, line: bytes) -> None:
        if _parsed(path, 1, line, dict[str, Any]).get("identity") != self._identity:
            raise InputError(f"{path}:1: the interrupted run had another model or options; remove the file")

    def join(self, count: int) -> None:
        """Begin again with the scores of complete shards, of which there are `count`, in the order of the inputs.

        Raises:
            InputError: if a shard is not complete, had another model or options, or is faulty.
        """
        paths = [shard_path(self.out, Shard(number, count)) for number in range(1, count + 1)]
        faults = []
        for number, path in enumerate(paths, start=1):
            if _partial(path).exists():
                faults.append(f"{_partial(path)}: not complete; --shard {number}/{count} --resume completes it")
            elif not path.exists():
                faults.append(f"{path}: no such file; --shard {number}/{count} writes it")
        raise_faults(faults, f"{self.out}: shards are not complete")
        for path in paths:
            with path.open("rb") as stream:
                self._require_same(path, stream.readline())
        self._stream.seek(0)
        self._stream.truncate()
        self._write({"identity": self._identity})
        self.done = 0
        shares = [self._records(path) for path in paths]
        for turn in cycle(range(count)):
            values = next(shares[turn], None)
            if values is None:
                break
            self.add(values)
        longer = [path for path, share in zip(paths, shares, strict=True) if next(share, None) is not None]
        raise_faults([f"{path}: has more recordings than the other shards" for path in longer], f"{self.out}: shards")
        self._joined = paths

    def scored(self) -> Iterator[tuple[str, str, list[int] | None]]:
        """Yield `file:line`, utterance id and `version` of each recording in the journal, or in the joined shards."""
        for number, values in enumerate(self._records(self.path)):
            path, line = self.path, number
            if self._joined:
                path, line = self._joined[number % len(self._joined)], number // len(self._joined)
            yield f"{path}:{line + 2}", values["utterance"], values["file"]

    def admit(self, utterance: str) -> None:
        """Check before a recording is scored that the output file can hold it.

        Raises:
            InputError: if the file is a Kaldi table, and the id contains white space, is not UTF-8 or is a duplicate.
        """
        if not self._is_table:
            return
        if utterance in self._admitted:
            fault = f"{utterance} is a duplicate"
        elif len(utterance.split()) != 1 or not is_utf8(utterance):
            fault = f"{utterance!r} is not an utterance id (UTF-8 text without white space)"
        else:
            self._admitted.add(utterance)
            return
        advice = "write .csv or .jsonl, or use a wav.scp"
        if self.done and self._scratch is None:
            new = self.path.name.replace(self.out.name, "NAME.csv", 1)
            advice += f"; to keep the scores, rename {self.path} to {new} and use --out NAME.csv --resume"
        raise InputError(f"{self.out}: {fault}, so a Kaldi table cannot hold it; {advice}")

    def add(self, values: dict[str, Any]) -> None:
        """Append the result of `record`; it is in the file when this returns."""
        self._write(values)
        self.done += 1

    def close(self, keep: bool = True) -> None:
        """Close the journal; remove it if it holds no score, is a temporary file, or is not to be kept."""
        finished = self._stream.closed  # then the journal is gone, or another process may have begun one
        self._stream.close()
        if not finished and (self.done == 0 or not keep):
            self.path.unlink(missing_ok=True)
        if self._scratch is not None:
            self._scratch.cleanup()

    def finish(self) -> int:
        """Write the file, remove the journal, and return the number of recordings that could not be used.

        The journal of a shard stays, under the name of a complete one.
        """
        self._stream.close()
        failed = sum(1 for values in self._records(self.path) if values["error"])
        suffix = self.out.suffix
        if self._complete is not None:
            self.path.replace(self._complete)
            return failed
        if suffix == ".csv":
            self._convert(self._write_csv)
        elif suffix == ".jsonl":
            self._convert(self._write_json_lines)
        else:
            self._write_tables()
        self.path.unlink()
        return failed

    def _write_tables(self) -> None:
        """Write the table of each target, the first one last: it is the file that later stages need."""
        if self._has_companions:
            self._write_scale()
        for place, scale in reversed(list(enumerate(self._scales))):
            path = self.out.with_name(target_table(scale.name).name) if place else self.out
            good = (values for values in self._records(self.path) if not values["error"])
            write_table(path, {values["utterance"]: values["scores"][scale.name] for values in good})

    def _write_scale(self) -> None:
        """Write the file `scale`, or remove that of an earlier prediction, with the tables that it names."""
        path, plain = self.out.with_name(SCALE), tuple(self._scales) == (MOS_SCALE,)
        if not (self.out.parent / "wav.scp").exists():
            for line in read_lines(path)[1:] if path.exists() else ():
                self.out.with_name(target_table(scale_line(line).name).name).unlink(missing_ok=True)
            if plain:
                path.unlink(missing_ok=True)
        if not plain:
            write_scales(self.out.parent, self._scales)

    @property
    def _columns(self) -> dict[str, str]:
        """Column -> name of the target."""
        return {"mos" if scale.name == MOS_SCALE.name else scale.name: scale.name for scale in self._scales}

    def _write_csv(self, stream: TextIO, records: Iterator[dict[str, Any]]) -> None:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["utterance", *self._columns, *self._calibrated, "seconds", *self._novelty, "error", "model"])
        for values in records:
            scores = values["scores"] or {}
            cells = [_rounded(scores.get(name)) for name in self._columns.values()]
            rest = [_rounded(values[name]) for name in ("seconds", *self._novelty)]
            name, error = as_text(values["utterance"]), as_text(values["error"] or "")
            writer.writerow([name, *cells, *self._calibrated.values(), *rest, error, self._model])

    def _write_json_lines(self, stream: TextIO, records: Iterator[dict[str, Any]]) -> None:
        for values in records:
            scores = values.pop("scores") or {}
            named = {column: scores.get(name) for column, name in self._columns.items()}
            rest = {name: values[name] for name in ("seconds", *self._novelty, "error")} | {"model": self._model}
            line = {"utterance": values["utterance"], **named, **self._calibrated, **rest}
            stream.write(json.dumps(line, ensure_ascii=True) + "\n")

    def _write(self, values: dict[str, Any]) -> None:
        self._stream.write(json.dumps(values) + "\n")
        self._stream.flush()

    def _records(self, path: Path) -> Iterator[dict[str, Any]]:
        with path.open("rb") as stream:
            next(stream, None)
            for number, line in enumerate(stream, start=2):
                values = _parsed(path, number, line, _Record).model_dump()
                if not values["error"] and values["scores"].keys() != {scale.name for scale in self._scales}:
                    raise InputError(
                        f"{path}:{number}: scores of {', '.join(values['scores'])}; the model predicts "
                        f"{', '.join(scale.name for scale in self._scales)}; remove the file and start again"
                    )
                yield values

    def _convert(self, write: Callable[[TextIO, Iterator[dict[str, Any]]], None]) -> None:
        with atomic_path(self.out) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            write(stream, self._records(self.path))


def _rounded(number: float | None) -> float | str:
    """Return a number as CSV shows it; empty if it is missing."""
    return "" if number is None else round(number, DECIMALS)


def _partial(path: Path) -> Path:
    """Return the journal of a file that is not complete."""
    return path.with_name(f"{path.name}.partial")


def _only_writer(path: Path) -> TextIO:
    """Open a journal to append to it; the system releases its lock when the process ends, however it ends.

    Raises:
        InputError: if another process writes it.
    """
    stream = path.open("a", encoding="utf-8")
    if sys.platform != "win32":
        import fcntl

        try:
            # Not lockf: closing any other descriptor of the file would release that lock.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The process that held the lock may have completed the journal meanwhile, under another name.
            is_free = is_at(stream, path)
        except BlockingIOError:
            is_free = False
        except OSError:  # a file system without locks
            is_free = True
        if not is_free:
            stream.close()
            raise InputError(f"{path}: another process writes it; wait for it or end it")
    return stream


def _parsed(path: Path, number: int, line: bytes, kind: Any) -> Any:
    try:
        return parse_json(line, path, kind, number)
    except InputError as error:
        raise InputError(f"{error}; remove the file and start again") from None
