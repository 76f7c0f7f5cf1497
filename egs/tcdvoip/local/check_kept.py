"""End unless the trainings that are kept had the settings that conf/ has now: what is kept is never trained again.

What settings do not tell must be the same: precision for all trainings of a page, what an encoder's name means, the
initial model for all of a model, and k-means for all of a model in a protocol. Trainings that are not there yet are
passed over.
"""

from __future__ import annotations

import argparse
import re
from itertools import product
from pathlib import Path

from distilmos.errors import raise_faults, run_main
from distilmos.report.experiment import read_experiment
from distilmos.training.config import load_config

# The seed is in the name, workers change nothing, and what precision came to is compared with that of the others.
FREE = {"seed", "num_workers", "precision"}


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kept", type=Path, nargs="+", required=True, metavar="DIR", help="one for each protocol, with MODEL_seedN"
    )
    parser.add_argument("--models", required=True, help="separated by spaces, as sweep.sh takes them")
    parser.add_argument("--seeds", required=True, help="separated by spaces")
    parser.add_argument("--folds", action="store_true", help="seeds are folds of the data, each with its own k-means")
    args = parser.parse_args()
    faults = []
    made: dict[tuple[str, ...], dict[str, Path]] = {}  # what must be the same, and for which -> value -> a training
    for model in args.models.split():
        name, *changes = re.findall(r"[+@]?[^+@]+", model)
        overrides = [change[1:] for change in changes if change.startswith("+")]
        wanted = load_config(Path("conf") / f"{name}.yaml", overrides).model_dump(exclude=FREE)
        for place, seed in product(args.kept, args.seeds.split()):
            kept = place / f"{model}_seed{seed}"
            if not kept.exists():
                continue
            config = load_config(kept / "config.yaml")
            found = config.model_dump(exclude=FREE)
            faults += [
                f"{kept}: {key} was {found[key]!r} and is {wanted[key]!r} now; remove it here and in exp to train again"
                for key in wanted
                if wanted[key] != found[key]
            ]
            # Logs of earlier versions do not say what `precision: auto` came to, nor the rest.
            start = {"precision": config.precision if config.precision != "auto" else None}
            start |= read_experiment(kept).start or {}
            for key, whose in (
                ("precision", ()),
                ("encoder", (config.ssl_model,)),
                ("initial_model", (model,)),
                ("kmeans", (model, str(place), seed if args.folds else "")),
            ):
                if start.get(key):
                    made.setdefault((key, *whose), {}).setdefault(start[key], kept)
    for (key, *_), values in made.items():
        if len(values) > 1:
            faults.append(f"{key}: " + ", ".join(f"{value} in {kept}" for value, kept in values.items()))
    raise_faults(faults, "trainings with other settings")


if __name__ == "__main__":
    run_main(main)
