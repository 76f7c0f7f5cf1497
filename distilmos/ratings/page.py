"""The report of a screening: who was rejected, why, and what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distilmos.data.datadir import DataDir
from distilmos.data.schema import CONTROL_KINDS
from distilmos.markdown import markdown_table, number
from distilmos.metrics import METRICS, agreement, level_scores
from distilmos.ratings.agreement import agreement_rows
from distilmos.ratings.intervals import SYSTEM, UTTERANCE, MeanScore, bootstrap_scores, mean_margin
from distilmos.ratings.panel import panel_of, people_of
from distilmos.ratings.rules import CORRELATION, OUTLIER, RULES, STRAIGHT, Limits, Verdict

SHOWN = 20  # single ratings on the page; rejected.tsv has all


@dataclass(frozen=True)
class Screening:
    """What was rejected.

    Attributes:
        before: the data directory that was screened.
        after: the new one.
        verdict: the reasons.
        lost: utterances that lost all their ratings, and are left out.
    """

    before: DataDir
    after: DataDir
    verdict: Verdict
    lost: Sequence[str]

    @property
    def rejected(self) -> list[str]:
        """The rejected listeners."""
        return [name for name, listener in self.verdict.listeners.items() if listener.reasons]

    def __str__(self) -> str:
        """Return one line of counts."""
        total, kept = (sum(map(len, data.rating_texts.values())) for data in (self.before, self.after))
        listeners = f"{len(self.rejected):,} of {len(self.verdict.listeners):,} listeners"
        lost = f"; utterances without a rating left: {len(self.lost):,}" if self.lost else ""
        return f"{self.after.path}: rejected {listeners}, {total - kept:,} of {total:,} ratings{lost}"


def screening_page(screening: Screening, limits: Limits) -> str:
    """Return the report as a Markdown page."""
    before, after, verdict = screening.before, screening.after, screening.verdict
    parts = [f"# Screening of {before.path.name}\n"]
    if before.notes:
        parts.append(f"**{before.notes}**\n")
    parts += [f"{screening}.\n", "## Rules\n", _rules(verdict, limits), "## Rejected listeners\n"]
    rows = [
        [name, rule, why, f"{listener.ratings:,}", number(listener.correlation, 2)]
        for name, listener in verdict.listeners.items()
        for rule, why in listener.reasons.items()
    ]
    header = ["listener", "rule", "why", "ratings", "LCC with the others"]
    parts.append(markdown_table(header, rows, left=3) if rows else "None.\n")
    if verdict.outliers:
        rows = [[*key, why] for key, why in sorted(verdict.outliers.items())]
        parts += [
            "## Rejected single ratings\n",
            markdown_table(["utterance", "listener", "why"], rows[:SHOWN], left=3),
        ]
        if len(rows) > SHOWN:
            parts.append(f"... and {len(rows) - SHOWN:,} more in rejected.tsv.\n")
    if screening.lost:
        names = f"{', '.join(screening.lost[:SHOWN])}{', ...' if len(screening.lost) > SHOWN else ''}"
        parts += ["## Utterances without a rating left\n", f"{len(screening.lost):,} are left out: {names}\n"]
    if before.system_mos and not after.system_mos:
        parts.append("The true scores of systems (sys2mos) were those of all ratings, and are left out.\n")
    if after.targets:
        parts.append(f"Scores of {', '.join(after.targets)} are unchanged: their single ratings are not known.\n")
    scores = [bootstrap_scores(panel_of(data.ratings), data.systems, {}, {}) for data in (before, after)]
    parts += ["## What it changes\n", _changes(before, after, *scores), _systems(before.scale.name, *scores)]
    return "\n".join(parts)


def _rules(verdict: Verdict, limits: Limits) -> str:
    texts = dict.fromkeys(CONTROL_KINDS, f"more than {limits.max_wrong:.0%} wrong")
    texts[STRAIGHT] = f"variance below {limits.min_variance:g} of a scale from 1 to 5"
    texts[CORRELATION] = f"LCC below {limits.min_correlation:g}"
    texts[OUTLIER] = f"z score beyond {limits.max_z:g}"
    rows = []
    for rule, meaning in RULES.items():
        judged = [name for name, known in verdict.listeners.items() if rule in known.answers]
        if rule not in limits.rules:
            found = "not applied"
        elif rule in CONTROL_KINDS and not judged:
            found = "no such questions"
        elif rule == OUTLIER:
            found = _count(len(verdict.outliers), "rating")
        else:
            count = sum(rule in listener.reasons for listener in verdict.listeners.values())
            found = _count(count, "listener") + (f" of {len(judged):,} asked" if judged else "")
        rows.append([rule, meaning, texts[rule], found])
    least = f"Listeners with fewer than {limits.min_ratings} ratings are not judged by {STRAIGHT} and {CORRELATION}.\n"
    return markdown_table(["rule", "meaning", "limit", "rejected"], rows, left=4) + "\n" + least


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _changes(before: DataDir, after: DataDir, old: Sequence[MeanScore], new: Sequence[MeanScore]) -> str:
    """Return tables of the sets before and after, and of the agreement of their scores."""
    facts = zip(_facts(before, old).items(), _facts(after, new).values(), strict=True)
    same = level_scores(after.mos, before.mos, after.systems, {})
    rows = [[level, *(number(agreement(*pair)[metric]) for metric in METRICS)] for level, pair in same.items()]
    return (
        markdown_table(["", "before", "after"], [[name, was, now] for (name, was), now in facts])
        + "\n"
        + markdown_table(["scores before and after", *METRICS], rows)
    )


def _facts(data: DataDir, scores: Sequence[MeanScore]) -> dict[str, str]:
    return {
        "rated utterances": f"{len(data.ratings):,}",
        "listeners": f"{len(set(people_of(data.ratings).values())):,}",
        "ratings": f"{sum(map(len, data.ratings.values())):,}",
        f"mean {data.scale.name} with 95 % interval": f"{number(scores[0].mos)} {scores[0].bounds}",
        "half of the 95 % interval of a system, mean": number(mean_margin(scores, SYSTEM)),
        "half of the 95 % interval of an utterance, mean": number(mean_margin(scores, UTTERANCE)),
        "standard deviation of the ratings": number(scores[0].deviation),
        **dict(agreement_rows(data.ratings)),
    }


def _systems(name: str, old: Sequence[MeanScore], new: Sequence[MeanScore]) -> str:
    """Return a table of the systems; `name` is that of what was rated."""
    known = {score.name: score for score in new if score.level == SYSTEM}
    rows = []
    for score in (score for score in old if score.level == SYSTEM):
        now = known.get(score.name)
        cells = (
            ["-"] * 3 if now is None else [number(now.mos, 2), now.bounds, number(now.mos - score.mos, 2, sign=True)]
        )
        rows.append([score.name, number(score.mos, 2), score.bounds, *cells])
    header = ["system", f"{name} before", "95 % interval", f"{name} after", "95 % interval", "difference"]
    return markdown_table(header, rows)
