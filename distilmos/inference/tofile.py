"""Predict recordings to a file: continue an interrupted run, score a share of the inputs, or join all shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from distilmos import __version__
from distilmos.data.recordings import Recording
from distilmos.data.tables import as_text
from distilmos.errors import InputError, PreemptedError
from distilmos.files import written_in_place
from distilmos.inference.output import Journal, Shard, record, shard_path, version
from distilmos.inference.predict import PredictOptions, Score, predict, scales_of
from distilmos.inference.runtime import Runtime
from distilmos.model.directory import ModelInfo
from distilmos.preemption import StopRequest, stop_requests

# Passes scores on as they come; the number is that of the recordings that an earlier run has scored.
Watch = Callable[[Iterable[Score], int], Iterator[Score]]


@dataclass(frozen=True)
class FileJob:
    """What is to be written.

    Attributes:
        out: the file, see `inference.output`.
        inputs: names of the inputs, none of which `out` may replace.
        resume: continue from the journal; a stop signal then ends the run between two recordings.
        shard: the share of the recordings to score; None for all.
        join: write `out` from the scores of so many complete shards; 0 to score.
    """

    out: Path
    inputs: Sequence[str] = ()
    resume: bool = False
    shard: Shard | None = None
    join: int = 0

    @property
    def written(self) -> Path:
        """The file that this job completes."""
        return shard_path(self.out, self.shard) if self.shard else self.out


def predict_to_file(
    runtime: Runtime, recordings: Iterator[Recording], options: PredictOptions, job: FileJob, watch: Watch
) -> tuple[int, int]:
    """Score recordings, and write the file when all are done.

    Args:
        runtime: the model.
        recordings: all of them, in the order of the inputs, also those of other shards.
        options: how to predict.
        job: what is to be written.
        watch: sees every score before it is kept; not those of an earlier run or of joined shards.

    Returns:
        the number of recordings in the file, and of those that could not be used.

    Raises:
        InputError: if `out` is an input, or cannot hold a recording; if the journal is of another run, or the inputs
            have changed; or if shards are not complete.
        PreemptedError: if a signal stopped the run, with `resume`.
    """
    journal = _open_journal(job, runtime.info, options)
    try:
        mine = take_share(_admitted(journal, _except(job, recordings)), job.shard)
        if job.join:
            _join(journal, job.join, mine)
        else:
            scores = watch(predict(runtime, _skip_done(journal, mine), options), journal.done)
            with stop_requests() if job.resume else nullcontext(StopRequest()) as stop:
                for score in scores:
                    journal.add(record(score))
                    if stop.signal:
                        raise PreemptedError(f"stopped by a signal after {journal.done} recordings")
        total, failed = journal.done, journal.finish()
    finally:
        journal.close(keep=not job.join)
    for number in range(1, job.join + 1):
        shard_path(job.out, Shard(number, job.join)).unlink()
    return total, failed


def take_share(recordings: Iterator[Recording], shard: Shard | None) -> Iterator[Recording]:
    """Return the recordings of a shard."""
    return recordings if shard is None else islice(recordings, shard.number - 1, None, shard.count)


def _open_journal(job: FileJob, info: ModelInfo, options: PredictOptions) -> Journal:
    identity = {
        "distilmos": __version__,
        "model": info.weights,
        "window_seconds": options.window_seconds,
        "corpus": options.corpus,
        "channel": options.channel,
        "scale": options.scale and list(options.scale),
    }
    calibration = options.calibration
    if calibration is not None:
        identity["calibration"] = calibration.model_dump(mode="json")
    return Journal(
        job.out,
        scales_of(info, options),
        info,
        identity,
        resume=job.resume or job.join > 0,
        calibrated=calibration.name if calibration else "",
        shard=job.shard,
        joins=job.join > 0,
    )


def _join(journal: Journal, count: int, recordings: Iterator[Recording]) -> None:
    """Take the scores of all shards to the journal.

    Raises:
        InputError: if the shards are not complete, or the inputs are not those of the shards.
    """
    journal.join(count)
    new = next(_skip_done(journal, recordings), None)
    if new is not None:
        raise InputError(f"{as_text(new.utterance)}: is in no shard; run --shard I/{count} again, with --resume")


def _except(job: FileJob, recordings: Iterator[Recording]) -> Iterator[Recording]:
    """Pass recordings on; refuse one that the file would overwrite."""
    target = _real(job.out)
    lists = [place for name in job.inputs for place in (Path(name), Path(name) / "wav.scp", Path(name) / "segments")]
    if not written_in_place(job.out) and target in [_real(place) for place in lists if place.is_file()]:
        raise InputError(f"--out {job.out}: is an input")
    for recording in recordings:
        if recording.copy is None and _real(recording.path) == target:
            raise InputError(f"--out {job.out}: is an input")
        yield recording


def _real(path: Path) -> str | None:
    """Return the path without symbolic links; None if no file can have this name."""
    try:
        return os.path.realpath(path)  # Path.resolve fails on a loop of links
    except ValueError:  # it holds NUL
        return None


def _admitted(journal: Journal, recordings: Iterator[Recording]) -> Iterator[Recording]:
    """Pass recordings on, those of other shards too; refuse one that the output file cannot hold."""
    for recording in recordings:
        journal.admit(recording.utterance)
        yield recording


def _skip_done(journal: Journal, recordings: Iterator[Recording]) -> Iterator[Recording]:
    """Yield the recordings that are not in the journal yet; the journal must hold the first ones, unchanged."""
    for where, name, file in journal.scored():
        recording = next(recordings, None)
        if recording is None or recording.utterance != name:
            raise InputError(f"{where}: {as_text(name)}: the inputs have changed; remove the file and start again")
        if version(recording) != file:
            raise InputError(f"{where}: {as_text(name)} has changed since; remove the file and start again")
    yield from recordings
