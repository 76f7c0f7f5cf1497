"""Print the names and paths of a recipe's sets and of everything made from them, as assignments for bash.

egs/TEMPLATE/distilmos.sh evaluates them, in the recipe's directory. This command also checks the configuration.

    model, ssl_model              network and SSL encoder of the configuration
    needs_tokens                  true or false: whether stage 5 needs stages 2 to 4
    own_sets                      names of the sets that this recipe prepares
    train_sources, dev_sources    sets to join, as CORPUS=RAW; RAW is the data directory after stage 1
    train, dev                    the joined set, or the only one, as CORPUS=RAW
    train_name, dev_name          its name
    train_raw, dev_raw            its directory
    tests, test_names             test sets as CORPUS=RAW, and the names of their directories of results
    test_scales                   with --model: for each test set its corpus, or "" if the model lacks its rating scale
    feats, kmeans, tokens, exp    directories of stages 2, 3, 4 and 5
    pooled                        directory of the pooled layers of stage 4
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from distilmos.commands.options import positive_int, seed
from distilmos.data.sets import RecipeSet, RecipeSets
from distilmos.errors import InputError
from distilmos.model.directory import read_corpora
from distilmos.training.config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--corpus", required=True, metavar="NAME", help="name of the recipe, for example mini")
    uses = {"train": "sets to train on", "dev": "sets to choose the model with", "test": "sets to test on"}
    for name, what in uses.items():
        parser.add_argument(f"--{name}", nargs="*", default=[], metavar="SET", help=f"{what}: SET or CORPUS/SET")
    parser.add_argument("--dumpdir", type=Path, default=Path("dump"), metavar="DIR", help="audio, features and tokens")
    parser.add_argument("--expdir", type=Path, default=Path("exp"), metavar="DIR", help="models and results")
    parser.add_argument(
        "--dumpdir-of",
        action="append",
        default=[],
        metavar="CORPUS=DIR",
        help="dumpdir of another recipe (default: ../CORPUS/dump); can be given several times",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="training configuration")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="replace one of the settings"
    )
    parser.add_argument("--teacher", default="", metavar="SSL", help="SSL model of the tokens (default: ssl_model)")
    parser.add_argument("--clusters", type=positive_int, required=True, metavar="K", help="k-means clusters of a layer")
    parser.add_argument("--seed", type=seed, required=True, metavar="N", help="seed of the run")
    parser.add_argument("--tag", default="", metavar="NAME", help="name of the run (default: from FILE and the seed)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="trained model, for test_scales")


def run(args: argparse.Namespace) -> int:
    """Print the assignments."""
    config = load_config(args.config, args.overrides)
    others = dict(map(_corpus_and_dumpdir, args.dumpdir_of))
    sets = RecipeSets(args.corpus, args.dumpdir, others)
    train, dev, test = ([sets.find(word) for word in words] for words in (args.train, args.dev, args.test))
    if unused := others.keys() - {each.corpus for each in [*train, *dev, *test]} | others.keys() & {args.corpus}:
        raise InputError(f"--dumpdir-of: no set is of {', '.join(sorted(unused))}")
    values: dict[str, str | Path | Sequence[str]] = {
        "model": config.model,
        "ssl_model": config.ssl_model,
        "needs_tokens": str(config.needs_tokens).lower(),
        "own_sets": sets.own([*train, *dev, *test]),
        "train_sources": [each.source for each in train],
        "dev_sources": [each.source for each in dev],
        "tests": [each.source for each in test],
        "test_names": [each.name for each in test],
    }
    if train and not dev:
        raise InputError("--dev: expected at least one set to choose the model with")
    for name, parts in (("train", train), ("dev", dev)):
        if parts:  # a recipe of test sets has none
            joined = sets.join(parts)
            values |= {name: joined.source, f"{name}_name": joined.name, f"{name}_raw": joined.raw}
    # Everything made from several corpora has a name of its own.
    suffix = f"_{values['train_name']}" if len(train) > 1 else ""
    tokens = f"{_short(args.teacher or config.ssl_model)}_k{args.clusters}{suffix}"
    values |= {
        "feats": args.dumpdir / f"feats{suffix}",
        "kmeans": args.expdir / f"kmeans_{tokens}",
        "tokens": args.dumpdir / f"tokens_{tokens}",
        "pooled": args.dumpdir / f"pooled_{_short(config.ssl_model)}",
        "exp": args.expdir / (args.tag or f"{Path(args.config).name.removesuffix('.yaml')}_seed{args.seed}{suffix}"),
    }
    if args.model is not None:
        values["test_scales"] = _scales(args.model, test)
    for name, value in values.items():
        print(f"{name}={_quoted(value)}")
    return 0


def _short(ssl: str) -> str:
    """Return the name of an SSL model in names of directories."""
    return Path(ssl).name.removesuffix(".pt")


def _corpus_and_dumpdir(text: str) -> tuple[str, Path]:
    corpus, _, directory = text.partition("=")
    if not corpus or not directory:
        raise InputError(f"--dumpdir-of {text}: expected CORPUS=DIR")
    return corpus, Path(directory)


def _scales(model: Path, test: Sequence[RecipeSet]) -> list[str]:
    """Return the corpus of each test set, or "" if the model has not learned its rating scale."""
    known = read_corpora(model)
    return [each.corpus if each.corpus in known else "" for each in test]


def _quoted(value: str | Path | Sequence[str]) -> str:
    if isinstance(value, str | Path):
        return shlex.quote(str(value))
    return f"({' '.join(map(shlex.quote, value))})"
