"""Make a page of the study, keep the finished runs of a page, or print the runs that a page lacks.

Run it in the recipe's directory; study.sh does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from page import CONF, dev_text, page_text, select
from records import Key, Study, check, keep, missing, read_kept, read_study, run_name

from distilmos.errors import InputError, run_main
from distilmos.files import write_text

STUDY = Path("study")  # this folder
EXP = Path("exp/study")


def main() -> None:
    """Read the command line and do the action."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("page", "keep", "lacking"))
    parser.add_argument("name", metavar="PAGE", help="a page of models.yaml")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default: study/PAGE.md in capitals")
    args = parser.parse_args()
    study = read_study(STUDY)
    page = study.page(args.name)
    if args.action == "keep":
        print(keep(study, page, STUDY, EXP))
        return
    kept = read_kept(STUDY)
    check(study, page, kept, CONF)
    lacking = missing(page, kept)
    if args.action == "lacking":
        print("".join(job_lines(study, lacking)), end="")
        return
    if lacking:
        names = "\n  ".join(map(run_name, lacking))
        raise InputError(f"{STUDY}: not kept; train with `study.sh train {args.name}`:\n  {names}")
    out = args.out or STUDY / f"{args.name.upper()}.md"
    command = f"./study.sh page {args.name}"
    if study.scores_dev(page):
        text = dev_text(study, page, kept, command)
    else:
        text = page_text(select(study, page, kept), command, out.parent / f"{out.stem}_files")
    write_text(out, text)
    print(out)


def job_lines(study: Study, lacking: list[Key]) -> list[str]:
    """Return a line for each array of jobs that trains missing runs, and for each published model to score.

    Tab-separated: `sweep`, place, options of run.sh, specs, seeds, whether only dev is scored; or `score`, place,
    options of run.sh, published model. Seeds that lack the same models are one array.
    """
    lines = []
    specs: dict[tuple[str, str, str, int], list[str]] = {}  # protocol, place, options and seed -> models to train
    for protocol, name, seed in lacking:
        place, options = study.place(protocol, seed), study.protocols[protocol].options.format(seed=seed)
        if seed is None:
            lines.append(f"score\t{place}\t{options}\t{name}\n")
        else:
            specs.setdefault((protocol, place, options, seed), []).append(study.models[name].spec)
    seeds: dict[tuple[str, str, str, str], list[str]] = {}
    for (protocol, place, options, seed), models in specs.items():
        seeds.setdefault((protocol, place, options, " ".join(models)), []).append(str(seed))
    for (protocol, place, options, array), numbers in seeds.items():
        dev = str(study.protocols[protocol].dev).lower()
        lines.append(f"sweep\t{place}\t{options}\t{array}\t{' '.join(numbers)}\t{dev}\n")
    return lines


if __name__ == "__main__":
    run_main(main)
