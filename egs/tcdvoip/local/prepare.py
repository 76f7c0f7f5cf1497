"""Prepare the data directories train, dev and test of TCD-VoIP from the release's workbook and audio.

--split conditions: no degradation condition is in two of train, dev and test.
--split leave_type_out: test has all files of the type --held_out, train and dev have those of the other types.

All mismatches between the workbook and the audio are printed and written to DATADIR/report.txt.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from distilmos.data.audio import audio_seconds
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.workbook import read_sheet
from distilmos.errors import InputError, raise_faults, run_main
from distilmos.files import write_text

WORKBOOK = "TCD VOIP - Test Set Conditions and MOS Results.xlsx"
SHEET = "Subjective Test Scores"
AUDIO = "Test Set"
TYPES = ("echo", "chop", "clip", "compspkr", "noise")
LISTENERS = 24
FILENAME = re.compile(rf"(C_(\d\d)_({'|'.join(TYPES).upper()}))_([FM][A-Z])\.wav")
# Every type repeats these conditions under the same ConditionID (sheet "Test Conditions"): the undegraded recording,
# and the four levels of a Modulated Noise Reference Unit (Q in dB) that anchor the scale.
REPEATED = {1: "reference", 21: "mnru_q48", 22: "mnru_q36", 23: "mnru_q24", 24: "mnru_q12"}
SETS = ("train", "dev", "test")
# One round of dealing to test (0) and to the folds 1, 2, ...: one fold is dev, the others are train. If the conditions
# run out in the last round, test and the first folds still get theirs.
TEST = 0
DEAL_CONDITIONS = (2, TEST, 1, 3, 4)
DEAL_LEAVE_TYPE_OUT = (2, 1, 3, 4, 5)
DEFAULT_ROOT = Path(__file__).resolve().parents[1] / "downloads" / "tcdvoip"
WHERE_FROM = f"""\
Get TCD-VoIP from the Sigmedia group, Trinity College Dublin (sigmedia.tv), and unpack it to
  {DEFAULT_ROOT}
or give --db_root DIR, the directory with '{WORKBOOK}' and '{AUDIO}/'.
Reference: N. Harte, E. Gillen, A. Hines, "TCD-VoIP, a research database of degraded speech for assessing quality
in VoIP applications", QoMEX 2015."""


@dataclass(frozen=True)
class Recording:
    """One row of the workbook.

    Attributes:
        name: file name.
        system: the condition within its type, for example C_01_ECHO.
        kind: degradation type, one of TYPES.
        talker: for example FA.
        condition_id: the number that the workbook gives the condition.
        ratings: (listener, score) pairs.
        listed_mean: the MOS in the workbook.
        row: row of the sheet, from 1.
    """

    name: str
    system: str
    kind: str
    talker: str
    condition_id: int
    ratings: tuple[tuple[str, float], ...]
    listed_mean: object
    row: int

    @property
    def path(self) -> str:
        """Path of the audio below the root of the release."""
        return f"{AUDIO}/{self.kind}/{self.name}"

    @property
    def condition(self) -> str:
        """The degradation: `system`, or the name of a condition that every type repeats."""
        return REPEATED.get(self.condition_id, self.system)

    @property
    def mos(self) -> float:
        """Mean of the ratings."""
        return sum(score for _, score in self.ratings) / len(self.ratings)

    @property
    def group(self) -> str:
        """Group of the report's errors: the type, or `reference` or `mnru`."""
        return self.kind if self.condition == self.system else self.condition.split("_")[0]


def main() -> None:
    """Read the command line and write the data directories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db_root", type=Path, default=DEFAULT_ROOT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--split", choices=("conditions", "leave_type_out"), default="conditions", help="the protocol")
    parser.add_argument("--held_out", choices=TYPES, help="the type of test, for --split leave_type_out")
    parser.add_argument("--datadir", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the split only; default: %(default)s")
    parser.add_argument(
        "--dev_fold",
        type=int,
        default=1,
        metavar="N",
        help="the fold that is dev; default: %(default)s",
    )
    args = parser.parse_args()
    folds = len(DEAL_CONDITIONS) - 1 if args.split == "conditions" else len(DEAL_LEAVE_TYPE_OUT)
    if not 1 <= args.dev_fold <= folds:
        parser.error(f"--dev_fold must be in 1..{folds} with --split {args.split}")
    if (args.split == "leave_type_out") != (args.held_out is not None):
        parser.error("--split leave_type_out needs --held_out, and no other split accepts it")

    recordings, mismatches = read_release(args.db_root)
    sets = split_conditions(recordings, args.seed, args.held_out, args.dev_fold)
    for name in SETS:
        chosen = (recording for recording in recordings if sets[recording.system] == name)
        write_data_dir(args.datadir / name, (utterance(args.db_root, recording) for recording in chosen))
    protocol = args.split if args.held_out is None else f"{args.split}, held out: {args.held_out}"
    protocol += f", seed {args.seed}, dev fold {args.dev_fold}"
    report = describe(args.db_root, protocol, recordings, mismatches, sets)
    write_text(args.datadir / "report.txt", report)
    print(report, end="")


def read_release(root: Path) -> tuple[list[Recording], list[str]]:
    """Read the workbook and compare it with the audio.

    Returns:
        the rated recordings, and one line for each mismatch that does not affect a rating.

    Raises:
        InputError: naming all bad cells and all missing or unreadable audio.
    """
    workbook = root / WORKBOOK
    for needed in (workbook, root / AUDIO):
        if not needed.exists():
            raise InputError(f"{needed}: no such file or directory\n{WHERE_FROM}")
    recordings, faults = read_scores(workbook)
    where = f"{workbook}: sheet '{SHEET}'"
    mismatches: list[str] = []
    for recording in recordings:
        try:
            audio_seconds(root / recording.path)
        except InputError as error:
            faults.append(f"{where}: row {recording.row}: {error}")
        if not isinstance(recording.listed_mean, int | float) or abs(recording.listed_mean - recording.mos) > 1e-6:
            listed = f"the workbook's mean is {recording.listed_mean!r}, that of the ratings {recording.mos:.4f} (used)"
            mismatches.append(f"row {recording.row}: {recording.name}: {listed}")
    raise_faults(faults, f"reading TCD-VoIP in {root}")

    numbers = Counter((recording.system, recording.condition_id) for recording in recordings)
    for (system, number), count in sorted(numbers.items()):
        if int(system.split("_")[1]) != number:
            mismatches.append(f"{system}: ConditionID is {number} ({REPEATED[number]}) in the workbook ({count} files)")
    listed_paths = {recording.path for recording in recordings}
    found = (p for p in sorted((root / AUDIO).rglob("*.wav")) if not p.name.startswith("."))
    for path in (p.relative_to(root).as_posix() for p in found):
        if path not in listed_paths:
            mismatches.append(f"{path}: no rating in the workbook (not used)")
    return recordings, mismatches


def read_scores(workbook: Path) -> tuple[list[Recording], list[str]]:
    """Read the ratings.

    Returns:
        the recordings of all good rows, and a line for each fault of the other rows.

    Raises:
        InputError: if the workbook is unreadable, or its heading differs from the release's.
    """
    heading, *rows = read_sheet(workbook, SHEET)
    where = f"{workbook}: sheet '{SHEET}'"
    listeners = {f"L{title:02d}": column for column, title in enumerate(heading) if isinstance(title, int)}
    if heading[:3] != ("Filename", "ConditionID", "sample MOS") or len(listeners) != LISTENERS:
        wanted = f"Filename, ConditionID, sample MOS and {LISTENERS} numbered listeners"
        raise InputError(f"{where}: row 1: expected the columns {wanted}, found {heading}")

    faults: list[str] = []
    recordings: list[Recording] = []
    names: dict[str, int] = {}
    ids: dict[str, object] = {}
    for number, cells in enumerate(rows, start=2):
        if all(cell is None for cell in cells):
            continue
        name = str(cells[0])
        match = FILENAME.fullmatch(name)
        if match is None:
            faults.append(f"{where}: cell A{number}: {cells[0]!r} is not a name like C_01_ECHO_FA.wav")
            continue
        system, in_name, kind, talker = match[1], int(match[2]), match[3].lower(), match[4]
        row_faults = []
        if names.setdefault(name, number) != number:
            row_faults.append(f"cell A{number}: {name} is already in row {names[name]}")
        condition_id = cells[1]
        if condition_id != in_name and condition_id not in REPEATED:
            row_faults.append(f"cell B{number}: {name}: {condition_id!r} is not the number in the file name")
        elif ids.setdefault(system, condition_id) != condition_id:
            row_faults.append(f"cell B{number}: {name}: {condition_id!r}, but {ids[system]!r} for others of {system}")
        row_faults += score_faults(cells, number, listeners)
        faults += [f"{where}: {fault}" for fault in row_faults]
        if not row_faults:
            ratings = tuple((listener, float(cells[column])) for listener, column in listeners.items())
            recordings.append(Recording(name, system, kind, talker, int(condition_id), ratings, cells[2], number))
    if not names:
        faults.append(f"{where}: no rated file")
    return recordings, faults


def score_faults(cells: tuple, row: int, listeners: dict[str, int]) -> list[str]:
    """Return a line for each cell of a row that is not a whole score in 1..5."""
    from openpyxl.utils import get_column_letter

    return [
        f"cell {get_column_letter(column + 1)}{row}: {cells[column]!r} is not a score in 1..5"
        for column in listeners.values()
        if isinstance(cells[column], bool) or cells[column] not in (1, 2, 3, 4, 5)
    ]


def split_conditions(recordings: list[Recording], seed: int, held_out: str | None, dev_fold: int) -> dict[str, str]:
    """Assign every condition to train, dev or test.

    Within each type, conditions are sorted by MOS and dealt in rounds of five neighbours, in a random order that
    depends only on the seed and the type. So each set has its share of each type and of each range of quality. The
    copies of a condition that several types repeat are one unit; these units are dealt among themselves. The undegraded
    recordings go to train instead, because a model that never heard clean speech cannot score it.

    Args:
        recordings: all rated files.
        seed: of the random order.
        held_out: the type that goes to test as a whole, the others to train and dev; None deals all types to all sets.
        dev_fold: the fold that is dev, from 1; it does not change test.

    Returns:
        system -> set.
    """
    assigned = {recording.system: "test" for recording in recordings if recording.kind == held_out}
    for recording in recordings:
        if recording.group == "reference":
            assigned.setdefault(recording.system, "train")
    strata: dict[str, dict[str, list[Recording]]] = defaultdict(lambda: defaultdict(list))
    for recording in recordings:
        if recording.system not in assigned:
            stratum = recording.kind if recording.condition == recording.system else "repeated"
            strata[stratum][recording.condition].append(recording)
    deal = DEAL_CONDITIONS if held_out is None else DEAL_LEAVE_TYPE_OUT
    for stratum, conditions in sorted(strata.items()):
        order = random.Random(f"{seed} {stratum}")
        means = {name: sum(r.mos for r in files) / len(files) for name, files in conditions.items()}
        ranked = sorted(means, key=lambda name: (means[name], name))
        for start in range(0, len(ranked), len(deal)):
            neighbours = ranked[start : start + len(deal)]
            hand = list(deal[: len(neighbours)])
            order.shuffle(hand)
            for condition, fold in zip(neighbours, hand, strict=True):
                name = "test" if fold == TEST else "dev" if fold == dev_fold else "train"
                assigned.update({recording.system: name for recording in conditions[condition]})
    return assigned


def utterance(root: Path, recording: Recording) -> Utterance:
    """Return the entry of a recording in a data directory."""
    return Utterance(
        id=Path(recording.name).stem,
        audio=root / recording.path,
        system=recording.system,
        ratings=recording.ratings,
        speaker=recording.talker,
        group=recording.group,
        condition=recording.condition,
    )


def describe(
    root: Path, protocol: str, recordings: list[Recording], mismatches: list[str], sets: dict[str, str]
) -> str:
    """Return the report: counts for each set and type, and all mismatches."""
    lines = [
        f"TCD-VoIP in {root}",
        f"split: {protocol}",
        f"{len(recordings)} rated files, {len(sets)} conditions, {LISTENERS} listeners",
        "",
        f"{'conditions':<12}" + "".join(f"{kind:>10}" for kind in TYPES) + f"{'all':>8}{'files':>8}  MOS of files",
    ]
    for name in SETS:
        own = [recording for recording in recordings if sets[recording.system] == name]
        kinds = {recording.system: recording.kind for recording in own}
        counts = Counter(kinds.values())
        scores = [recording.mos for recording in own]
        row = "".join(f"{counts[kind]:>10}" for kind in TYPES)
        lines.append(f"{name:<12}{row}{len(kinds):>8}{len(own):>8}  {min(scores):.2f} to {max(scores):.2f}")
    lines += ["", "Conditions that every type repeats (undegraded, and reference noise at four levels):"]
    for condition in REPEATED.values():
        where = Counter(sets[r.system] for r in recordings if r.condition == condition)
        lines.append(f"  {condition:<12}" + ", ".join(f"{where[name]} files in {name}" for name in SETS if where[name]))
    lines += ["", f"Mismatches between workbook and audio: {len(mismatches)}", *(f"  {line}" for line in mismatches)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_main(main)
