"""Write the card of a data directory: its content, the agreement of its listeners, and its overlap with other sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.schema import SCALE
from distilmos.errors import raise_faults
from distilmos.files import write_text
from distilmos.markdown import markdown_table, number
from distilmos.metrics import METRICS, system_means
from distilmos.ratings.agreement import agreement_rows, listener_ceiling
from distilmos.ratings.intervals import (
    ALL,
    CONDITION,
    GROUP,
    SYSTEM,
    UTTERANCE,
    MeanScore,
    bootstrap_scores,
    mean_margin,
    write_scores,
)
from distilmos.ratings.panel import panel_of, people_of
from distilmos.report.figures import histogram
from distilmos.scoring.p1401 import half_width
from distilmos.training.config import TrainConfig

CARD, PICTURE, SCORES = "SUMMARY.md", "mos_histogram.svg", "scores.tsv"
LONG_SECONDS: float = TrainConfig.model_fields["max_seconds"].default
SHOWN = 5  # highest and lowest scores of a level; names of long utterances


def write_cards(directories: Sequence[str | Path]) -> list[Path]:
    """Write SUMMARY.md into each data directory, with a histogram of the MOS if the set is rated.

    A set with single ratings also gets scores.tsv: the scores of utterances, systems, conditions, groups and the set
    with their intervals.

    Args:
        directories: the sets of a corpus; each card shows the overlap with the other sets.

    Returns:
        paths of the cards.

    Raises:
        InputError: if a directory is faulty; then no card is written.
    """
    sets = {Path(d): read_data_dir(d, rated=(Path(d) / "utt2mos").exists(), pipes=True) for d in directories}
    first = next(iter(sets.values()))
    raise_faults(
        [
            f"{data.path / SCALE}: the scale is {data.scale}; in {first.path} it is {first.scale}"
            for data in sets.values()
            if data.scale != first.scale
        ],
        "the sets of a corpus have one scale",
    )
    scores = {path: _scores(data) for path, data in sets.items()}
    pages = {
        path: _page(data, scores[path], [other for other in sets.values() if other is not data])
        for path, data in sets.items()
    }
    for path, page in pages.items():
        if scores[path]:
            write_scores(path / SCORES, scores[path], sets[path].scale.name)
        if sets[path].mos:
            write_text(path / PICTURE, histogram(list(sets[path].mos.values()), sets[path].scale))
        write_text(path / CARD, page)
    return [path / CARD for path in pages]


def _scores(data: DataDir) -> list[MeanScore]:
    """Return the scores of a set with their intervals; none without single ratings."""
    if not data.ratings:
        return []
    conditions = data.conditions if "sys2cond" in data.tables else {}
    return bootstrap_scores(panel_of(data.ratings), data.systems, data.groups, conditions)


def _page(data: DataDir, scores: Sequence[MeanScore], others: Sequence[DataDir]) -> str:
    parts = [f"# {data.path.name}\n"]
    if data.notes:
        parts.append(f"**{data.notes}**\n")
    facts = _facts(data) | _precision(scores, data.scale.name)
    parts.append(markdown_table(["property", "value"], [[name, text] for name, text in facts.items()], left=2))
    if data.mos:
        parts.append(f"![Histogram of the {data.scale.name} of utterances]({PICTURE})\n")
        parts.append(_systems(data, {score.name: score for score in scores if score.level == SYSTEM}))
    for level in (CONDITION, GROUP):
        if found := [score for score in scores if score.level == level]:
            rows = {score.name: (score.mos, score.utterances, score) for score in found}
            parts.append(_ranked(level, data.scale.name, rows))
    if data.ratings:
        parts.append(markdown_table(["listener agreement", "value"], agreement_rows(data.ratings)))
        parts.append(_ceiling(data))
    if others:
        header = ["shared with", "utterances", "systems", "listeners", "speakers", "sentences"]
        parts.append(markdown_table(header, [[other.path.name, *_shared(data, other)] for other in others]))
    long = [u for u, seconds in data.durations.items() if seconds > LONG_SECONDS]
    if long:
        shown = ", ".join(sorted(long)[:SHOWN])
        parts.append(
            f"{len(long)} utterances are longer than {LONG_SECONDS:g} s, for example {shown}. Training refuses "
            "utterances longer than max_seconds of its configuration.\n"
        )
    return "\n".join(parts)


def _facts(data: DataDir) -> dict[str, str]:
    seconds = list(data.durations.values())
    facts = {
        "utterances": f"{len(data.utterances):,}",
        "hours": f"{sum(seconds) / 3600:.3f}",
        "seconds per utterance": f"{min(seconds):.2f} to {max(seconds):.2f}, mean {np.mean(seconds):.2f}",
        "systems": f"{len(set(data.systems.values())):,}",
    }
    sizes = Counter(data.systems.values()).values()
    facts["utterances per system"] = _range(sizes)
    facts[data.scale.name] = _spread(data.mos) if data.mos else "not rated"
    if data.scales:
        facts["scale"] = data.scale.span
    for target, scores in data.targets.items():
        facts[f"target {target}"] = f"{len(scores):,} utterances" + (f", {_spread(scores)}" if scores else "")
    for target in dict.fromkeys(target for each in data.votes.values() for target in each):
        known = [each[target] for each in data.votes.values() if target in each]
        facts[f"ratings of {target} per utterance"] = _range([count for _, count in known])
        # Of one utterance, the interval does not depend on the mean.
        margins = [half_width(np.zeros(1), np.array([sd]), np.array([count])) for sd, count in known if count > 1]
        facts[f"half of the 95 % interval of {target} of an utterance (Student's t)"] = _mean(margins)
    if data.ratings:
        people = people_of(data.ratings)
        heard = Counter(people[name] for pairs in data.ratings.values() for name, _ in pairs)
        facts["ratings"] = f"{sum(heard.values()):,}"
        facts["ratings per utterance"] = _range([len(pairs) for pairs in data.ratings.values()])
        facts["listeners"] = f"{len(heard):,}"
        facts["ratings per listener"] = _range(heard.values())
    for group, count in sorted(Counter(data.groups.get(s, "") for s in set(data.systems.values())).items()):
        if group:
            facts[f"systems in group {group}"] = str(count)
    return facts


def _precision(scores: Sequence[MeanScore], name: str) -> dict[str, str]:
    """Return how precise the scores are, with the intervals of `bootstrap_scores`."""
    if not scores:
        return {}
    whole = next(score for score in scores if score.level == ALL)
    deviations = [s.deviation for s in scores if s.level == UTTERANCE and not math.isnan(s.deviation)]
    margin = mean_margin(scores, UTTERANCE)
    return {
        f"mean {name} with 95 % interval (bootstrap)": f"{whole.mos:.2f} {whole.bounds}",
        "half of the 95 % interval of an utterance (bootstrap)": _mean([] if math.isnan(margin) else [margin]),
        "standard deviation of the ratings of an utterance": _mean(deviations),
    }


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} in the mean" if values else "not known: one rating each"


def _spread(scores: Mapping[str, float]) -> str:
    values = list(scores.values())
    return f"{min(values):.2f} to {max(values):.2f}, mean {np.mean(values):.2f}, sd {np.std(values):.2f}"


def _range(counts: Iterable[int]) -> str:
    values = sorted(counts)
    low, high = values[0], values[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}, median {np.median(values):g}"


def _systems(data: DataDir, known: Mapping[str, MeanScore]) -> str:
    """Return a table of the systems; `known` are scores with intervals."""
    means = system_means(data.mos, data.systems)
    sizes = Counter(data.systems[utterance] for utterance in data.mos)
    rows = {s: (data.system_mos.get(s, mean), sizes[s], known.get(s)) for s, mean in means.items()}
    return _ranked(SYSTEM, data.scale.name, rows)


def _ranked(level: str, name: str, rows: Mapping[str, tuple[float, int, MeanScore | None]]) -> str:
    """Return a table of the highest and the lowest scores of a level.

    Args:
        level: SYSTEM, CONDITION or GROUP.
        name: of what was rated.
        rows: name -> score, number of rated utterances, and the score with its interval, if that is known.
    """
    ranked = sorted(rows.items(), key=lambda row: (-row[1][0], row[0]))
    cells = [
        [
            label,
            str(utterances),
            number(mean, 2),
            score.bounds if score else "-",
            number(score.deviation if score else None, 2),
        ]
        for label, (mean, utterances, score) in ranked
    ]
    if len(cells) > 2 * SHOWN:
        cells[SHOWN:-SHOWN] = [[f"({len(cells) - 2 * SHOWN} others)", *[""] * 4]]
    return markdown_table([level, "utterances", name, "95 % interval (bootstrap)", "sd of ratings"], cells)


def _ceiling(data: DataDir) -> str:
    """Return a table of how well listeners predict other listeners."""
    ceiling = listener_ceiling(data.ratings, data.systems)
    rows = [
        [f"{name}, {level}", *(number(values.get(metric)) for metric in METRICS)]
        for name, levels in ceiling.items()
        for level, values in levels.items()
    ]
    return markdown_table(["listener ceiling", *METRICS], rows)


def _shared(data: DataDir, other: DataDir) -> list[str]:
    cells = []
    for mine, theirs in zip(_names(data), _names(other), strict=True):
        cells.append("not known" if mine is None or theirs is None else f"{len(mine & theirs):,} of {len(mine):,}")
    return cells


def _names(data: DataDir) -> list[set[str] | None]:
    """Return the utterances, systems, listeners, speakers and sentences of a set; None where they are not known."""
    listeners = set(people_of(data.ratings).values())
    speakers, sentences, texts = (
        set(data.tables[name].values()) if name in data.tables else None for name in ("utt2spk", "utt2sent", "text")
    )
    return [set(data.utterances), set(data.systems.values()), listeners or None, speakers, sentences or texts]
