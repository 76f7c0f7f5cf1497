"""Make a page of the study, keep the finished runs of a page, or print the runs that a page lacks.

Run it in the directory of a recipe; study.sh does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from page import CONF, dev_text, page_text, select
from records import TEST, TRAIN, Key, Page, Study, check, has_signals, keep, missing, read_kept, read_study, run_name

from distilmos.errors import InputError, run_main
from distilmos.files import write_text
from distilmos.references.published import MODELS
from distilmos.training.config import load_config

STUDY = Path("study")  # the folder of the recipe that holds its studies


def main() -> None:
    """Read the command line and do the action."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("page", "keep", "lacking"))
    parser.add_argument("name", metavar="[FOLDER/]PAGE", help="a page of study/models.yaml or study/FOLDER/models.yaml")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default: study/PAGE.md in capitals")
    args = parser.parse_args()
    subfolder, _, name = args.name.rpartition("/")
    folder = STUDY / subfolder
    study = read_study(folder)
    page = study.page(name)
    if args.action == "keep":
        print(keep(study, page, folder, "exp" / folder))
        return
    kept = read_kept(folder)
    check(study, page, kept, CONF)
    lacking = missing(study, page, kept)
    if args.action == "lacking":
        print("".join(job_lines(study, page, lacking, folder)), end="")
        return
    if lacking:
        names = "\n  ".join(map(run_name, lacking))
        raise InputError(f"{folder}: not kept; train with `./study/study.sh train {args.name}`:\n  {names}")
    out = args.out or folder / f"{name.upper()}.md"
    command = f"./study/study.sh page {args.name}"
    if page.dev:
        text = dev_text(study, page, kept, command)
    else:
        text = page_text(select(study, page, kept), command, out.parent / f"{out.stem}_files")
    write_text(out, text)
    print(out)


def job_lines(study: Study, page: Page, lacking: list[Key], folder: Path) -> list[str]:
    """Return a line for each array of jobs that trains missing runs, and for each set to score with a published model.

    Separated by `|`: kind, place, options of run.sh, training sets, test sets, and then for
        tokens: the encoder, settings for run.sh of the first model that has it;
        sweep: specs, seeds, whether only dev is scored; seeds that lack the same models are one array;
        refit, confidence: directory of a run, training set, data directories of the test sets;
        score, predict: model of `distilmos predict-published` or of `distilmos predict`, data directory of a set, its
            results.
    """
    lines, further, published = [], [], []
    tokens: dict[tuple[str, str], str] = {}  # place and encoder -> line
    specs: dict[tuple[str, int], list[str]] = {}  # data and seed -> models to train
    for protocol, name, seed in lacking:
        place, options = study.place(protocol, seed), study.protocols[protocol].options.format(seed=seed)
        data = f"{place}|{options}|{_sets(study, protocol)}"
        if seed is None:
            exp = study.run_directory("exp" / folder, (protocol, name, None))
            kind = "score" if name in MODELS else "predict"
            published += [
                f"{kind}|{data}|{name}|{each.raw}|{exp / 'results' / each.name}\n"
                for each in study.test_sets(protocol, "dump" / folder / place)
            ]
        else:
            model = study.models[name]
            specs.setdefault((data, seed), []).append(model.spec)
            config = load_config(CONF / f"{model.conf}.yaml", model.overrides)
            if not page.dev:
                run = study.run_directory("exp" / folder, (protocol, name, seed))
                tests = " ".join(str(each.raw) for each in study.test_sets(protocol, "dump" / folder / place))
                train = "dump" / folder / place / "raw" / TRAIN
                rest = f"{data}|{run}|{train}|{tests}\n"
                further += [f"refit|{rest}"] * study.protocols[protocol].refit
                further += [f"confidence|{rest}"] * (study.protocols[protocol].confidence and has_signals(config))
            if config.needs_tokens and not model.options:  # sweep.sh makes those of models with options
                settings = " ".join(
                    [f"--conf {CONF}/{model.conf}.yaml", *(f"--train_opts {o}" for o in model.overrides)]
                )
                tokens.setdefault((place, config.ssl_model), f"tokens|{data}|{config.ssl_model}|{settings}\n")
    seeds: dict[tuple[str, str], list[str]] = {}
    for (data, seed), models in specs.items():
        seeds.setdefault((data, " ".join(models)), []).append(str(seed))
    for (data, array), numbers in seeds.items():
        lines.append(f"sweep|{data}|{array}|{' '.join(numbers)}|{str(page.dev).lower()}\n")
    # The published models come last, because they may not be installed.
    return [*tokens.values(), *lines, *further, *published]


def _sets(study: Study, protocol: str) -> str:
    """Return --train_sets and --test_sets of run.sh, separated by `|`."""
    return " ".join([TRAIN, *study.protocols[protocol].train]) + "|" + " ".join([TEST, *study.protocols[protocol].sets])


if __name__ == "__main__":
    run_main(main)
