"""Prepare the data directories train, dev and test of speechocean762.

The official test set is test. A fifth of the speakers of the official training set are dev, the others are train. A
speaker is a system, and all children and all adults are a group.
"""

from __future__ import annotations

import math
import random
import re
import statistics
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilmos.data.datadir import Utterance
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.data.schema import Scale
from distilmos.data.tables import ScannedTable, read_json, scan_table
from distilmos.errors import InputError, run_main

ASPECTS = ("fluency", "prosodic", "accuracy")
LOWEST, HIGHEST = 0, 10
EXPERTS = 5
UTTERANCES, SPEAKERS = 2500, 125  # of the official training set, and of the test set
DEV_SHARE = 0.2  # of the training speakers
GROUPS = ("adult", "child")
CHILD_UNTIL, ADULT_FROM = 15, 19  # years; the corpus has no speaker between
DETAILS = "resource/scores-detail.json"  # the scores of each expert
AGGREGATED = "resource/scores.json"
NOTES = (
    "Proficiency of non-native speakers, not transmission quality. The embedded hubert_tiny heard these speakers in "
    "pretraining, without ratings."
)

Scores = Mapping[str, tuple[float, ...]]  # aspect -> score of each expert


@dataclass(frozen=True)
class Part:
    """The lists of the official training set or test set."""

    wavs: ScannedTable[str]
    speakers: ScannedTable[str]
    texts: ScannedTable[str]
    groups: ScannedTable[str]  # speaker -> child or adult


def main() -> None:
    """Read the command line and write the data directories."""
    parser = corpus_parser(__doc__, "unpacked speechocean762.tar.gz")
    parser.add_argument("--aspect", choices=ASPECTS, default=ASPECTS[0], help="of utt2mos (default: %(default)s)")
    parser.add_argument("--dev_seed", type=int, default=1, help="of the choice of dev speakers (default: %(default)s)")
    parser.add_argument("--train_group", choices=("all", *GROUPS), default="all", help="speakers of train and dev")
    parser.add_argument("--train_utterances", type=int, default=0, help="of train, drawn with dev_seed; 0: all of them")
    args = parser.parse_args()

    preparation = Preparation(f"speechocean762 ({args.aspect})", args.datadir, allow_partial=args.allow_partial)
    train, test = (read_part(args.db_root / part, preparation) for part in ("train", "test"))
    both = [speaker for speaker in test.groups.lines if speaker in train.groups.lines]
    preparation.faults += [f"{test.groups.where(speaker)} is in {train.groups.path} too" for speaker in both]
    scores = read_scores(args.db_root / DETAILS, preparation.faults)
    unlisted = [u for u in scores if u not in train.wavs.lines and u not in test.wavs.lines]
    preparation.gaps += [f"{args.db_root / DETAILS}: {u}: in no wav.scp" for u in unlisted]
    compare_medians(args.db_root / AGGREGATED, scores, preparation.remarks)

    sets = dict.fromkeys(train.groups.values, "train") | dict.fromkeys(test.groups.values, "test")
    sets |= dict.fromkeys(choose_dev(train.groups.values, args.dev_seed), "dev")
    if args.train_group != "all":
        sets = {s: name for s, name in sets.items() if name == "test" or train.groups.values[s] == args.train_group}
    for name in ("train", "dev", "test"):
        preparation.begin(name)
    drawn = draw_utterances(train, sets, args.train_utterances, args.dev_seed)
    add_utterances(preparation, args.db_root, train, scores, args.aspect, sets, drawn)
    add_utterances(preparation, args.db_root, test, scores, args.aspect, sets, set(test.wavs.values))
    listed = {args.db_root / path for part in (train, test) for path in part.wavs.values.values()}
    unrated = sum(path not in listed for path in (args.db_root / "WAVE").glob("*/*.WAV"))
    preparation.remarks.append(f"{unrated:,} recordings in {args.db_root / 'WAVE'} have no ratings (not used)")
    preparation.write(NOTES, scales=[Scale(LOWEST, HIGHEST, args.aspect)])


def read_part(directory: Path, preparation: Preparation) -> Part:
    """Read the lists of the official training set or test set.

    Raises:
        InputError: if a list is missing or is not UTF-8.
    """
    part = Part(
        wavs=scan_table(directory / "wav.scp", str),
        speakers=scan_table(directory / "utt2spk", str),
        texts=scan_table(directory / "text", str),
        groups=scan_table(directory / "spk2age", age_group),
    )
    for table in (part.wavs, part.speakers, part.texts, part.groups):
        preparation.faults += table.faults
    preparation.faults += [
        f"{table.where(utterance)} is not in wav.scp"
        for table in (part.speakers, part.texts)
        for utterance in table.lines
        if utterance not in part.wavs.lines
    ]
    preparation.expect(f"{part.wavs.path}: utterances", len(part.wavs.lines), UTTERANCES)
    preparation.expect(f"{part.groups.path}: speakers", len(part.groups.lines), SPEAKERS)
    return part


def age_group(text: str) -> str:
    """Convert an age in years to `child` or `adult`.

    Raises:
        InputError: if it is not an age, or between the two.
    """
    if not re.fullmatch("[0-9]{1,3}", text):
        raise InputError(f"{text} is not an age in years")
    if CHILD_UNTIL < int(text) < ADULT_FROM:
        raise InputError(f"age {text} is neither that of a child (up to {CHILD_UNTIL}) nor of an adult ({ADULT_FROM})")
    return "child" if int(text) <= CHILD_UNTIL else "adult"


def read_scores(path: Path, faults: list[str]) -> dict[str, Scores]:
    """Return utterance -> scores of the experts; add a fault for each aspect without five scores on the scale.

    Raises:
        InputError: if the file is missing, or is not a JSON object of objects.
    """
    scores: dict[str, Scores] = {}
    for utterance, entry in read_json(path, dict[str, dict[str, Any]]).items():
        bad = [aspect for aspect in ASPECTS if not are_scores(entry.get(aspect))]
        wanted = f"{EXPERTS} scores in {LOWEST}..{HIGHEST}"
        faults += [f"{path}: {utterance}: {aspect}: {entry.get(aspect)!r} is not {wanted}" for aspect in bad]
        scores[utterance] = {aspect: tuple(map(float, entry[aspect])) for aspect in ASPECTS if aspect not in bad}
    return scores


def are_scores(value: object) -> bool:
    """Return whether a JSON value holds the scores of all experts."""
    return (
        isinstance(value, list)
        and len(value) == EXPERTS
        and all(type(score) in (int, float) and LOWEST <= score <= HIGHEST for score in value)
    )


def compare_medians(path: Path, scores: Mapping[str, Scores], remarks: list[str]) -> None:
    """Add a warning for each aspect whose aggregated scores, if the release has them, are not the experts' medians."""
    if not path.exists():
        return
    aggregated = read_json(path, dict[str, dict[str, Any]])
    for aspect in ASPECTS:
        medians = {utterance: statistics.median(own[aspect]) for utterance, own in scores.items() if aspect in own}
        listed = {utterance: aggregated.get(utterance, {}).get(aspect) for utterance in medians}
        differing = [utterance for utterance in medians if listed[utterance] != medians[utterance]]
        for first in differing[:1]:
            remarks.append(
                f"warning: {path}: {aspect} of {len(differing):,} utterances is not the median of the experts, "
                f"first {first}: {listed[first]} instead of {medians[first]:g}"
            )


def choose_dev(groups: Mapping[str, str], seed: int) -> list[str]:
    """Return the dev speakers: the same share of the children and of the adults, at least one (speaker -> group)."""
    chosen: list[str] = []
    for group in GROUPS:
        speakers = sorted(speaker for speaker in groups if groups[speaker] == group)
        number = min(len(speakers), max(1, round(DEV_SHARE * len(speakers))))
        chosen += random.Random(f"{seed} {group}").sample(speakers, number)
    return chosen


def draw_utterances(part: Part, sets: Mapping[str, str], number: int, seed: int) -> set[str]:
    """Return the utterances of an official set that are used: of train, `number` random ones; all if it is 0.

    Raises:
        InputError: if train has fewer, or `number` is negative.
    """
    used = set(part.wavs.values)
    if number == 0:
        return used
    train = sorted(u for u in used if sets.get(part.speakers.values.get(u, "")) == "train")
    if not 0 < number <= len(train):
        raise InputError(f"--train_utterances {number}: train has {len(train):,} utterances")
    return used - set(train) | set(random.Random(f"{seed} utterances").sample(train, number))


def add_utterances(
    preparation: Preparation,
    root: Path,
    part: Part,
    scores: Mapping[str, Scores],
    aspect: str,
    sets: Mapping[str, str],
    used: Set[str],
) -> None:
    """Add the utterances of an official set.

    Args:
        preparation: what to add them to.
        root: root of the release; the paths in wav.scp are relative to it.
        part: lists of the official set.
        scores: utterance -> scores of the experts.
        aspect: the aspect of mean score and ratings.
        sets: speaker -> train, dev or test; a speaker in none is left out.
        used: the utterances to add. The others are checked all the same.
    """
    for utterance, path in part.wavs.values.items():
        where = part.wavs.where(utterance)
        speaker = part.speakers.values.get(utterance)
        if speaker is None:
            preparation.faults.append(f"{where} is not in {part.speakers.path}")
        elif speaker not in part.groups.lines:
            preparation.faults.append(f"{part.speakers.where(utterance)}: {speaker} is not in {part.groups.path}")
        if utterance not in scores:
            preparation.faults.append(f"{where} is not in {root / DETAILS}")
        if speaker not in part.groups.values or aspect not in scores.get(utterance, {}):
            continue  # has a fault
        if speaker not in sets or utterance not in used:
            continue
        own = scores[utterance]
        ratings = tuple((f"expert{number}", score) for number, score in enumerate(own[aspect], start=1))
        added = Utterance(
            id=utterance,
            audio=root / path,
            system=speaker,
            ratings=ratings,
            speaker=speaker,
            text=part.texts.values.get(utterance),
            group=part.groups.values[speaker],
            targets={each: math.fsum(values) / EXPERTS for each, values in own.items()},
        )
        preparation.add(sets[speaker], added, where)


if __name__ == "__main__":
    run_main(main)
