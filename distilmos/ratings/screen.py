"""Screening of the listeners of a data directory, and a report of what it changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from distilmos.data.datadir import read_data_dir, require_other, require_replaceable, write_files
from distilmos.data.schema import CONTROL_KINDS
from distilmos.data.tables import c_locale_key
from distilmos.data.validate import validate_data_dir
from distilmos.errors import InputError, raise_faults
from distilmos.files import replaced_directory, write_text
from distilmos.ratings.page import Screening, screening_page
from distilmos.ratings.rules import Limits, Verdict, judge

PAGE, LISTENERS, REJECTED = "SCREENING.md", "screening.tsv", "rejected.tsv"


def screen_ratings(source: str | Path, out: str | Path, limits: Limits) -> Screening:
    """Write a data directory without the ratings that rules reject, whole or not at all.

    An utterance that loses ratings gets the mean of the others as its score; one that loses all is left out. The
    directory also has a report (SCREENING.md), what is known of each listener (screening.tsv), and all rejected ratings
    with the reasons (rejected.tsv).

    Raises:
        InputError: if `source` is faulty or has no ratings, or nothing would be left; or if `out` is `source`.
    """
    data = read_data_dir(source)
    if not data.ratings:
        raise InputError(f"{source}: has no single ratings (file ratings)")
    require_other(Path(out), data)
    verdict = judge(data, limits)
    kept = {
        utterance: [pair for pair in pairs if not verdict.rejected(utterance, pair[0])]
        for utterance, pairs in data.rating_texts.items()
    }
    lost = [utterance for utterance, pairs in kept.items() if not pairs]
    left = set(data.utterances) - set(lost)
    if not left:
        raise InputError(f"{source}: the rules reject all ratings")
    after = replace(data.only(left), path=Path(out))
    changed = {u: pairs for u, pairs in kept.items() if pairs and len(pairs) < len(data.rating_texts[u])}
    after.rating_texts.update(changed)
    means = {u: str(fmean(float(score) for _, score in pairs)) for u, pairs in changed.items()}
    after.tables["utt2mos"] = after.tables["utt2mos"] | means
    if changed or lost:
        # The true scores of systems were those of all ratings.
        after.tables.pop("sys2mos", None)
    screening = Screening(data, after, verdict, lost)
    pages = {PAGE: screening_page(screening, limits), LISTENERS: _listeners(verdict), REJECTED: _rejected(screening)}
    require_replaceable(Path(out))
    with replaced_directory(out) as new:
        write_files(replace(after, path=new))
        faults = validate_data_dir(new)
        raise_faults([fault.replace(str(new), str(out)) for fault in faults], f"writing {out}")
        for name, text in pages.items():
            write_text(new / name, text)
    return screening


def _listeners(verdict: Verdict) -> str:
    """Return a table of all listeners, separated by tabs."""
    header = ["listener", "rejected", "ratings", "variance", "correlation"]
    header += [f"{kind}_{count}" for kind in CONTROL_KINDS for count in ("asked", "wrong")]
    rows = ["\t".join([*header, "reasons"])]
    for name, listener in verdict.listeners.items():
        answers = [str(count) for kind in CONTROL_KINDS for count in listener.answers.get(kind, (0, 0))]
        cells = [name, "yes" if listener.reasons else "no", str(listener.ratings)]
        cells += ["" if math.isnan(x) else f"{x:.4f}" for x in (listener.variance, listener.correlation)]
        rows.append("\t".join([*cells, *answers, _text(listener.reasons)]))
    return "\n".join(rows) + "\n"


def _rejected(screening: Screening) -> str:
    """Return a table of all rejected ratings, separated by tabs."""
    rows = ["utterance\tlistener\tscore\treasons"]
    texts = screening.before.rating_texts
    for utterance in sorted(texts, key=c_locale_key):
        for listener, score in texts[utterance]:
            if reasons := screening.verdict.rejected(utterance, listener):
                rows.append(f"{utterance}\t{listener}\t{score}\t{_text(reasons)}")
    return "\n".join(rows) + "\n"


def _text(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{rule}: {why}" for rule, why in reasons.items())
