"""Stage 0 of a corpus: collect all faults, report them together, and write either all data directories or none."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distilmos.data.audio import audio_seconds
from distilmos.data.datadir import Utterance, write_data_dirs
from distilmos.data.schema import Scale
from distilmos.errors import InputError, raise_faults
from distilmos.files import write_text

REPORT = "report.txt"


class Preparation:
    """Collects the data directories of a corpus and the problems found.

    `faults` always stop the preparation. `gaps` (a missing or unreadable recording, a count that differs from the
    published one, a repeated rating) stop it unless a partial corpus is allowed; then the report lists them.
    """

    def __init__(self, corpus: str, datadir: str | Path, *, allow_partial: bool, report: str = REPORT) -> None:
        """Start with no sets.

        Args:
            corpus: name of the corpus, for messages and the report.
            datadir: parent of the data directories.
            allow_partial: whether gaps are accepted.
            report: name of the report in `datadir`.
        """
        self.corpus = corpus
        self.datadir = Path(datadir)
        self.allow_partial = allow_partial
        self.report = report
        self.faults: list[str] = []
        self.gaps: list[str] = []
        self.remarks: list[str] = []
        self.sets: dict[str, dict[str, Utterance]] = {}
        self._listed: dict[str, tuple[str, str]] = {}
        self._files: set[Path] = set()

    def begin(self, name: str) -> None:
        """Add an empty set, unless it exists."""
        self.sets.setdefault(name, {})

    def add(self, name: str, utterance: Utterance, where: str) -> None:
        """Add an utterance to a set, unless it is faulty or its audio cannot be read.

        Args:
            name: name of the set.
            utterance: the utterance.
            where: `file:line` of the list that names it.
        """
        self.begin(name)
        words = {"utterance id": utterance.id, "system": utterance.system}
        bad = [f"{what} {word!r}" for what, word in words.items() if len(word.split()) != 1]
        bad += [f"listener {listener!r}" for listener, _ in utterance.ratings if len(listener.split()) != 1]
        self.faults += [f"{where}: {what} is not one word; rename it" for what in bad]
        first, elsewhere = self._listed.setdefault(utterance.id, (name, where))
        if elsewhere != where:
            self.faults.append(f"{where}: {utterance.id} is in {elsewhere} ({first}) too")
            return
        self._files.add(Path(utterance.audio))
        try:
            seconds = audio_seconds(utterance.audio)
        except InputError as error:
            self.gaps.append(f"{where}: {error}")
            return
        self.sets[name][utterance.id] = replace(utterance, seconds=seconds)

    def leave_out(self, audio: Path) -> None:
        """Record a listed audio file that is not used; the remarks give the reason."""
        self._files.add(audio)

    def unlisted(self, found: Iterable[Path]) -> None:
        """Record audio files that are in no list as gaps."""
        self.gaps += [f"{path}: in no list" for path in sorted(found) if path not in self._files]

    def expect(self, what: str, found: int, published: int) -> None:
        """Record a count that differs from the published one as a gap."""
        if found != published:
            self.gaps.append(f"{what}: {found:,} instead of {published:,}")

    def check(self) -> None:
        """Check that the corpus can be written; call this before slow work.

        Raises:
            InputError: naming all faults, empty sets and, unless a partial corpus is allowed, gaps.
        """
        empty = [f"{name}: no utterance is left" for name, members in self.sets.items() if not members]
        hint = "" if self.allow_partial or not self.gaps else " (--allow_partial true prepares the rest)"
        found = self.faults + empty + ([] if self.allow_partial else self.gaps)
        raise_faults(found, f"preparing {self.corpus}{hint}")

    def write(
        self, notes: str = "", system_mos: Mapping[str, float] | None = None, scales: Sequence[Scale] = ()
    ) -> None:
        """Write all data directories and the report, and print the report.

        Args:
            notes: one line to show with all results.
            system_mos: true MOS of systems, where it is not the mean of their utterances in the set.
            scales: scales of the scores; see `write_data_dirs`.

        Raises:
            InputError: as `check`. Nothing is then written.
        """
        self.check()
        sets = {name: members.values() for name, members in self.sets.items()}
        write_data_dirs(self.datadir, sets, notes, system_mos, scales)
        report = self._report()
        write_text(self.datadir / self.report, report)
        print(report, end="")

    def _report(self) -> str:
        lines = [f"{self.corpus}, prepared in {self.datadir}"]
        for name, members in self.sets.items():
            systems = {utterance.system for utterance in members.values()}
            ratings = sum(len(utterance.ratings) for utterance in members.values())
            counts = f"{len(members):,} utterances, {len(systems):,} systems, {ratings:,} ratings"
            lines.append(f"  {name}: {counts}")
        lines += self.remarks
        if self.gaps:
            lines += [f"Differences from the published corpus, allowed by --allow_partial ({len(self.gaps)}):"]
            lines += [f"  {gap}" for gap in self.gaps]
        return "\n".join(lines) + "\n"


def boolean(text: str) -> bool:
    """Convert `true` or `false`, the value of an option in Kaldi's style."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def corpus_parser(description: str | None, root: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all local scripts of recipes share.

    Args:
        description: description of the script.
        root: help text of --db_root.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db_root", type=Path, required=True, metavar="DIR", help=root)
    parser.add_argument("--datadir", type=Path, default=Path("data"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--allow_partial",
        type=boolean,
        default=False,
        metavar="true|false",
        help="prepare existing files and list missing ones (default: false)",
    )
    return parser
