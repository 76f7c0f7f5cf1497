"""Stage 1: convert the audio of a data directory to 16 kHz mono 16-bit archives, in parallel shards."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distilmos.data.archive import merge_archives, open_archive, pipe_command, shard_of, split_location
from distilmos.data.audio import SAMPLE_RATE, WHOLE, read_audio
from distilmos.data.checks import Checks
from distilmos.data.datadir import DataDir, read_data_dir, write_files
from distilmos.data.pipes import Pipes
from distilmos.data.schema import SEGMENTS, TABLES
from distilmos.data.tables import read_table, write_table
from distilmos.errors import InputError, raise_faults

SHARDS = "shards"
REWRITTEN = {"wav.scp", "utt2dur", SEGMENTS}  # tables with new content, or of no use then; stage 1 copies the others
_SHARD = re.compile(r"(?P<name>.+)\.(?P<job>[0-9]+)(?P<suffix>\.ark|\.scp|)")


@dataclass(frozen=True)
class DumpSummary:
    """Result of one job.

    Attributes:
        utterances: number of recordings written.
        seconds: their total duration.
        warnings: one line for each recording that `Checks` warns of, or that has samples beyond full scale (after
            resampling), which are clipped to 16 bits.
    """

    utterances: int
    seconds: float
    warnings: list[str]


def dump_audio(
    data_dir: str | Path, out_dir: str | Path, job: int, jobs: int, *, execute_pipes: bool = False
) -> DumpSummary:
    """Write the audio of job `job` to `out_dir/shards/wav.JOB.{ark,scp}` and its durations to `utt2dur.JOB`.

    Only wav.scp must exist. If there are `segments`, each becomes a recording of its own. Job 1 also copies the tables
    that do not change. wav.scp, which later stages need, appears last, when the shards are merged.

    Args:
        data_dir: data directory, for example data/train.
        out_dir: output directory, for example dump/raw/train.
        job: number of this job, 1..jobs.
        jobs: number of jobs that share the utterances.
        execute_pipes: whether to run the commands in wav.scp; see `Pipes`.

    Raises:
        InputError: naming every unusable recording; nothing is then written.
    """
    data = read_data_dir(data_dir, rated=False, pipes=execute_pipes, audio_only=True)
    shards = Path(out_dir) / SHARDS
    durations: dict[str, float] = {}
    faults: list[str] = []
    warnings: list[str] = []
    reader = _Reader(data)
    with open_archive(shards / f"wav.{job}") as archive, reader.pipes:
        for utterance in shard_of(data.utterances, job, jobs):
            where = reader.where(utterance)
            checks = Checks()
            try:
                samples = reader.read(utterance, checks)
            except InputError as error:
                faults.append(str(error))
                continue
            scaled = np.rint(samples * 32768.0)
            if scaled.max() > 32767 or scaled.min() < -32768:
                checks.note("samples beyond full scale are clipped")
            if found := checks.warnings("write one of them to a mono file"):
                warnings.append(f"{where}: {'; '.join(found)}")
            archive.write(utterance, (SAMPLE_RATE, np.clip(scaled, -32768, 32767).astype(np.int16)))
            durations[utterance] = samples.size / SAMPLE_RATE
        raise_faults(faults, f"reading the audio of {data.path}")
    if job == 1:
        write_files(replace(data, path=Path(out_dir)), leave_out=REWRITTEN | (TABLES.keys() - data.tables.keys()))
    write_table(shards / f"utt2dur.{job}", durations)
    return DumpSummary(len(durations), sum(durations.values()), warnings)


class _Reader:
    """Reads the utterances of a data directory."""

    def __init__(self, data: DataDir) -> None:
        self.pipes = Pipes()
        self._data = data

    def where(self, utterance: str) -> str:
        """Return `file:line: utterance`, the start of a fault's line."""
        return self._data.where(SEGMENTS if self._data.segments else "wav.scp", utterance)

    def read(self, utterance: str, checks: Checks) -> np.ndarray:
        """Read an utterance as 16 kHz mono, float32 (N,), and check it.

        Raises:
            InputError: with file and line.
        """
        recording, span = self._data.segments.get(utterance, (utterance, WHOLE))
        location = self._data.tables["wav.scp"][recording]
        command = pipe_command(location)
        try:
            path, offset = (self.pipes.run(command), None) if command else split_location(location)
        except InputError as error:
            raise InputError(f"{self._data.where('wav.scp', recording)}: {error}") from None
        try:
            return read_audio(path, offset, span, checks=checks)
        except InputError as error:
            reason = str(error).replace(str(path), f"output of {command!r}") if command else str(error)
            raise InputError(f"{self.where(utterance)}: {reason}") from None


def merge_shards(directory: str | Path, jobs: int) -> dict[str, int]:
    """Join the shards of parallel jobs in `directory/shards` (`NAME.JOB.ark`, tables `NAME.JOB`) into `directory`.

    Returns:
        name -> number of utterances.

    Raises:
        InputError: if a shard is missing, shards of further jobs exist, or an utterance is in two shards.
    """
    directory = Path(directory)
    shards = directory / SHARDS
    names = _shard_names(shards, jobs)
    counts: dict[str, int] = {}
    for name in names:
        if (shards / f"{name}.1.scp").exists():
            stems = [shards / f"{name}.{job}" for job in range(1, jobs + 1)]
            counts[name] = merge_archives(stems, directory / name)
        else:
            joined: dict[str, str | float] = {}
            for job in range(1, jobs + 1):
                part = read_table(shards / f"{name}.{job}")
                twice = [f"{shards}/{name}.{job}: {key} is also in another shard" for key in part if key in joined]
                raise_faults(twice, f"merging {shards}")
                joined |= part
            write_table(directory / name, joined)
            counts[name] = len(joined)
            for job in range(1, jobs + 1):
                (shards / f"{name}.{job}").unlink()
    shutil.rmtree(shards)  # holds only temporary files of killed jobs now
    return counts


def _shard_names(shards: Path, jobs: int) -> list[str]:
    """Return the names of the archives and tables in `shards`.

    Raises:
        InputError: unless each name has exactly the shards 1..jobs.
    """
    found: dict[str, set[int]] = {}
    surplus = []
    for path in sorted(shards.glob("*")):
        match = _SHARD.fullmatch(path.name)
        if match and not 1 <= int(match["job"]) <= jobs:
            surplus.append(f"{path}: there are only {jobs} jobs")
        elif match:
            # A killed job leaves an ark without its scp.
            found.setdefault(match["name"], set()).update([int(match["job"])] if match["suffix"] != ".ark" else [])
    raise_faults(surplus, f"{shards}: shards of more than {jobs} jobs")
    if not found:
        raise InputError(f"{shards}: no shards to merge")
    missing = [(name, job) for name in sorted(found) for job in range(1, jobs + 1) if job not in found[name]]
    raise_faults(
        [f"{shards}/{name}.{job}: no such shard; its job failed or still runs" for name, job in missing],
        f"merging {shards}",
    )
    return sorted(found)
