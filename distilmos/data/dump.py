"""Stage 1: convert the audio of a data directory to 16 kHz mono 16-bit archives, in parallel shards."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distilmos.data.archive import merge_archives, open_archive, shard_of
from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.checks import Checks
from distilmos.data.datadir import read_data_dir, write_files
from distilmos.data.tables import read_table, write_table
from distilmos.errors import InputError, raise_faults

SHARDS = "shards"
REWRITTEN = ("wav.scp", "utt2dur")  # tables with new content; stage 1 copies the others
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


def dump_audio(data_dir: str | Path, out_dir: str | Path, job: int, jobs: int) -> DumpSummary:
    """Write the audio of job `job` to `out_dir/shards/wav.JOB.{ark,scp}` and its durations to `utt2dur.JOB`.

    Job 1 also copies the tables that do not change. wav.scp, which later stages need, appears last, when the shards are
    merged.

    Raises:
        InputError: naming every unusable recording; nothing is then written.
    """
    data = read_data_dir(data_dir, rated=False)
    lines = {utterance: line for line, utterance in enumerate(data.wavs, start=1)}
    shards = Path(out_dir) / SHARDS
    durations: dict[str, float] = {}
    faults: list[str] = []
    warnings: list[str] = []
    with open_archive(shards / f"wav.{job}") as archive:
        for utterance in shard_of(data.utterances, job, jobs):
            where = f"{data.path / 'wav.scp'}:{lines[utterance]}: {utterance}"
            checks = Checks()
            try:
                samples = read_audio(*data.wavs[utterance], checks=checks)
            except InputError as error:
                faults.append(f"{where}: {error}")
                continue
            scaled = np.rint(samples * 32768.0)
            if scaled.max() > 32767 or scaled.min() < -32768:
                checks.note("samples beyond full scale are clipped")
            if found := checks.warnings():
                warnings.append(f"{where}: {'; '.join(found)}")
            archive.write(utterance, (SAMPLE_RATE, np.clip(scaled, -32768, 32767).astype(np.int16)))
            durations[utterance] = samples.size / SAMPLE_RATE
        raise_faults(faults, f"reading the audio of {data.path}")
    if job == 1:
        write_files(replace(data, path=Path(out_dir)), leave_out=REWRITTEN)
    write_table(shards / f"utt2dur.{job}", durations)
    return DumpSummary(len(durations), sum(durations.values()), warnings)


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
