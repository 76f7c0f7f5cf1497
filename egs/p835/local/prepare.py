"""Prepare the test sets p835_wb and p835_fb: the reference conditions of Microsoft's P.835 crowdsourcing.

The scores are means of crowd votes on overall quality (ovrl), speech signal (sig) and background noise (bak).
"""

from __future__ import annotations

import re
from pathlib import Path

from distilmos.data.datadir import Utterance
from distilmos.data.lists import Row, read_sheet_rows, score
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.data.schema import MOS, Scale, votes
from distilmos.errors import InputError, run_main

ROOT = "p835_reference_conditions"
WORKBOOK = "CSP835_Ref_Conditions.xlsx"
PLAN = "testplan"
# Bandwidth -> sheet with the scores, and directory of the audio.
SETS = {
    "wb": ("16KHzWB-results per file", "degraded_WB_16KHz"),
    "fb": ("Fullband-results per file", "degraded_fullband_48KHz"),
}
FILES = 78  # of each set: 13 conditions, 6 talkers
TARGETS = ("ovrl", "sig", "bak")
NAME = re.compile(r"(c([0-9]{1,2}))_([fm][0-9])\.wav")  # condition, its number, talker
NAME_COLUMN, VOTES_COLUMN = "short_file_name", "n votes"
MILDEST = "40"  # dB: SNR of the mildest noise, and Q of the mildest MNRU
WHERE_FROM = "clone https://github.com/microsoft/P.808, or give --db_root DIR"


def main() -> None:
    """Read the command line and write the data directories."""
    parser = corpus_parser(__doc__, "copy of github.com/microsoft/P.808")
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="of utt2mos (default: %(default)s)")
    args = parser.parse_args()

    root = args.db_root / ROOT
    if not (root / WORKBOOK).exists():
        raise InputError(f"{root / WORKBOOK}: no such file; {WHERE_FROM}")
    corpus = f"P.835 reference conditions ({args.target})"
    preparation = Preparation(corpus, args.datadir, allow_partial=args.allow_partial)
    groups = read_groups(root / WORKBOOK, preparation.faults)
    columns = (NAME_COLUMN, VOTES_COLUMN, *(column for target in TARGETS for column in columns_of(target)))
    for bandwidth, (sheet, audio) in SETS.items():
        rows = read_sheet_rows(root / WORKBOOK, sheet, columns, preparation.faults)
        preparation.expect(f"{root / WORKBOOK}: sheet '{sheet}': files", len(rows), FILES)
        preparation.begin(f"p835_{bandwidth}")
        for row in rows:
            add_recording(preparation, row, bandwidth, root / audio, groups, args.target)
        preparation.unlisted((root / audio).glob("*.wav"))
    preparation.write(scales=[Scale(1, 5, args.target)])


def columns_of(target: str) -> tuple[str, str]:
    """Return the columns of mean and standard deviation of a target."""
    return f"MOS_{target.upper()}", f"std_{target}"


def read_groups(workbook: Path, faults: list[str]) -> dict[str, str]:
    """Return condition -> group: reference, mnru, noise, or noise_mnru if both are stronger than the mildest.

    All other conditions with the mildest noise are mnru, also the one with the mildest MNRU.
    """
    columns = ("Condition Name", "SNR (dB)", "MNRU (QdB)")
    groups = {}
    for row in read_sheet_rows(workbook, PLAN, columns, faults, may_be_empty=True):
        condition, snr, q = (row[column] for column in columns)
        if not q:
            groups[condition] = "reference"
        elif snr == MILDEST:
            groups[condition] = "mnru"
        else:
            groups[condition] = "noise" if q == MILDEST else "noise_mnru"
    return groups


def add_recording(
    preparation: Preparation, row: Row, bandwidth: str, audio: Path, groups: dict[str, str], target: str
) -> None:
    """Add the recording of a row, unless the row is faulty.

    Args:
        preparation: what to add it to.
        row: a row of the sheet.
        bandwidth: key of SETS.
        audio: directory of the recordings.
        groups: condition -> group.
        target: the target of the mean score.
    """
    match = NAME.fullmatch(row[NAME_COLUMN])
    if match is None or match[1] not in groups:
        wanted = f"a name like c1_f2.wav with a condition of the sheet '{PLAN}'"
        preparation.faults.append(f"{row.where}: {row[NAME_COLUMN]!r} is not {wanted}")
        return
    condition, number, talker = match.groups()
    scores: dict[str, float] = {}
    spreads: dict[str, tuple[float, int]] = {}  # standard deviation and number of votes
    for each in TARGETS:
        mean, deviation = columns_of(each)
        value = score(row, mean, preparation.faults)
        try:
            _, spread, number_of_votes = votes(f"{each} {row[deviation]} {row[VOTES_COLUMN]}")
        except InputError as error:
            preparation.faults.append(f"{row.where}: {each}: {error}")
            continue
        if value is not None:
            scores[each], spreads[each] = value, (spread, number_of_votes)
    if target not in scores:
        return
    utterance = Utterance(
        id=f"{bandwidth}_{condition}_{talker}",
        audio=audio / row[NAME_COLUMN],
        system=f"c{int(number):02d}",
        mos=scores[target],
        speaker=talker,
        group=groups[condition],
        targets=scores,
        votes={MOS: spreads[target]} | spreads,
    )
    preparation.add(f"p835_{bandwidth}", utterance, row.where)


if __name__ == "__main__":
    run_main(main)
