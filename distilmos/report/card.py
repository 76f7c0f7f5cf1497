"""Write the card of a data directory: its content, the agreement of its listeners, and its overlap with other sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.schema import SCALE
from distilmos.errors import raise_faults
from distilmos.files import write_text
from distilmos.markdown import markdown_table, number
from distilmos.report.figures import histogram
from distilmos.training.config import TrainConfig

CARD, PICTURE = "SUMMARY.md", "mos_histogram.svg"
SPLITS = 100  # random halves of the listeners
SEED = 1
LONG_SECONDS: float = TrainConfig.model_fields["max_seconds"].default
SYSTEMS_SHOWN = 5


def write_cards(directories: Sequence[str | Path]) -> list[Path]:
    """Write SUMMARY.md into each data directory, with a histogram of the MOS if the set is rated.

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
    pages = {path: _page(data, [other for other in sets.values() if other is not data]) for path, data in sets.items()}
    for path, page in pages.items():
        if sets[path].mos:
            write_text(path / PICTURE, histogram(list(sets[path].mos.values()), sets[path].scale))
        write_text(path / CARD, page)
    return [path / CARD for path in pages]


def _page(data: DataDir, others: Sequence[DataDir]) -> str:
    parts = [f"# {data.path.name}\n"]
    if data.notes:
        parts.append(f"**{data.notes}**\n")
    facts = _facts(data)
    parts.append(markdown_table(["property", "value"], [[name, text] for name, text in facts.items()]))
    if data.mos:
        parts.append(f"![Histogram of the {data.scale.name} of utterances]({PICTURE})\n")
        parts.append(_systems(data))
    if data.ratings:
        parts.append(_agreement(data.ratings))
    if others:
        header = ["shared with", "utterances", "systems", "listeners", "speakers", "sentences"]
        parts.append(markdown_table(header, [[other.path.name, *_shared(data, other)] for other in others]))
    long = [u for u, seconds in data.durations.items() if seconds > LONG_SECONDS]
    if long:
        shown = ", ".join(sorted(long)[:SYSTEMS_SHOWN])
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
        margin = np.mean([1.96 * deviation / math.sqrt(count) for deviation, count in known])
        counts = _range([count for _, count in known])
        facts[f"ratings of {target} per utterance"] = f"{counts}; half of the 95 % interval: {margin:.2f} in the mean"
    if data.ratings:
        heard = Counter(listener for pairs in data.ratings.values() for listener, _ in pairs)
        facts["ratings"] = f"{sum(heard.values()):,}"
        facts["ratings per utterance"] = _range([len(pairs) for pairs in data.ratings.values()])
        facts["listeners"] = f"{len(heard):,}"
        facts["ratings per listener"] = _range(heard.values())
    for group, count in sorted(Counter(data.groups.get(s, "") for s in set(data.systems.values())).items()):
        if group:
            facts[f"systems in group {group}"] = str(count)
    return facts


def _spread(scores: Mapping[str, float]) -> str:
    values = list(scores.values())
    return f"{min(values):.2f} to {max(values):.2f}, mean {np.mean(values):.2f}, sd {np.std(values):.2f}"


def _range(counts: Iterable[int]) -> str:
    values = sorted(counts)
    low, high = values[0], values[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}, median {np.median(values):g}"


def _systems(data: DataDir) -> str:
    """Return a table of the systems with the highest and the lowest MOS."""
    scores: dict[str, list[float]] = {}
    for utterance, mos in data.mos.items():
        scores.setdefault(data.systems[utterance], []).append(mos)
    means = {system: data.system_mos.get(system, math.fsum(v) / len(v)) for system, v in scores.items()}
    ranked = sorted(means, key=lambda system: (-means[system], system))
    shown = ranked if len(ranked) <= 2 * SYSTEMS_SHOWN else ranked[:SYSTEMS_SHOWN] + ranked[-SYSTEMS_SHOWN:]
    rows = [[system, f"{len(scores[system])}", number(means[system], 2)] for system in shown]
    if len(shown) < len(ranked):
        rows.insert(SYSTEMS_SHOWN, [f"({len(ranked) - len(shown)} others)", "", ""])
    return markdown_table(["system", "utterances", data.scale.name], rows)


def split_half(ratings: Mapping[str, Sequence[tuple[str, float]]], splits: int = SPLITS, seed: int = SEED) -> float:
    """Return the correlation (LCC) of the mean scores of two halves of the listeners, averaged over random halves.

    This is the reliability r of a mean over half of the ratings: a perfect prediction of the true scores would have an
    LCC of sqrt(r) with such a mean. A split divides the listeners, not the ratings of each utterance, so that a severe
    listener is in one half only.

    Args:
        ratings: utterance -> (listener, score) pairs.
        splits: number of random splits.
        seed: seed of the splits.

    Returns:
        LCC, or NaN if no split has two utterances that both halves rated and whose scores differ.
    """
    listeners = sorted({listener for pairs in ratings.values() for listener, _ in pairs})
    places = {listener: place for place, listener in enumerate(listeners)}
    utterance, listener, score = _columns(ratings, places)
    random = np.random.default_rng(seed)
    correlations = []
    for _ in range(splits):
        half = random.permutation(len(listeners)) < len(listeners) / 2
        means = []
        for chosen in (half[listener], ~half[listener]):
            counts = np.bincount(utterance[chosen], minlength=len(ratings))
            sums = np.bincount(utterance[chosen], score[chosen], minlength=len(ratings))
            means.append(np.divide(sums, counts, out=np.full(len(ratings), np.nan), where=counts > 0))
        both = ~np.isnan(means[0]) & ~np.isnan(means[1])
        if both.sum() > 1 and np.ptp(means[0][both]) > 0 and np.ptp(means[1][both]) > 0:
            correlations.append(np.corrcoef(means[0][both], means[1][both])[0, 1])
    return float(np.mean(correlations)) if correlations else math.nan


def intraclass_correlation(ratings: Mapping[str, Sequence[tuple[str, float]]]) -> tuple[float, float]:
    """Return ICC(1,1), the reliability of a single rating, and ICC(1,k), that of the mean rating of an utterance.

    One-way random effects: P. E. Shrout, J. L. Fleiss, "Intraclass correlations: uses in assessing rater reliability",
    Psychological Bulletin 86 (1979). If utterances have different numbers of ratings k_i, k is the effective number
    k0 = (N - sum k_i^2 / N) / (n - 1) (S. R. Searle, Linear Models, 1971, section 9.8).

    Args:
        ratings: utterance -> (listener, score) pairs.

    Returns:
        both, or NaN if they are not defined (fewer than two utterances, no utterance rated twice, no variance).
    """
    utterance, _, score = _columns(ratings, None)
    counts = np.bincount(utterance).astype(float)
    total, items = counts.sum(), counts.size
    if items < 2 or total == items:
        return math.nan, math.nan
    means = np.bincount(utterance, score) / counts
    between = float((counts * (means - score.mean()) ** 2).sum()) / (items - 1)
    within = float(((score - means[utterance]) ** 2).sum()) / (total - items)
    size = (total - float((counts**2).sum()) / total) / (items - 1)
    if between + (size - 1) * within == 0 or between == 0:
        return math.nan, math.nan
    return (between - within) / (between + (size - 1) * within), (between - within) / between


def _columns(
    ratings: Mapping[str, Sequence[tuple[str, float]]], places: Mapping[str, int] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the number of the utterance, the place of the listener and the score of every rating, each (N,)."""
    rows = [
        (n, places[listener] if places else 0, value)
        for n, pairs in enumerate(ratings.values())
        for listener, value in pairs
    ]
    utterance, listener, score = zip(*rows, strict=True)
    return np.array(utterance), np.array(listener), np.array(score)


def _agreement(ratings: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    single, mean = intraclass_correlation(ratings)
    rows = [
        [f"LCC between the means of random halves of the listeners, average of {SPLITS}", number(split_half(ratings))],
        ["ICC(1,1): reliability of one rating", number(single)],
        ["ICC(1,k): reliability of an utterance's mean", number(mean)],
    ]
    return markdown_table(["listener agreement", "value"], rows)


def _shared(data: DataDir, other: DataDir) -> list[str]:
    cells = []
    for mine, theirs in zip(_names(data), _names(other), strict=True):
        cells.append("not known" if mine is None or theirs is None else f"{len(mine & theirs):,} of {len(mine):,}")
    return cells


def _names(data: DataDir) -> list[set[str] | None]:
    """Return the utterances, systems, listeners, speakers and sentences of a set; None where they are not known."""
    listeners = {listener for pairs in data.ratings.values() for listener, _ in pairs}
    speakers, sentences, texts = (
        set(data.tables[name].values()) if name in data.tables else None for name in ("utt2spk", "utt2sent", "text")
    )
    return [set(data.utterances), set(data.systems.values()), listeners or None, speakers, sentences or texts]
