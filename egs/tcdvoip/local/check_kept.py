"""End unless the trainings that are kept had the settings that conf/ has now: what is kept is never trained again.

Their precision may be another one, that of the machine they were made on, but must be the same for all.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from distilmos.errors import raise_faults, run_main
from distilmos.training.config import load_config

# The seed is in the name, workers change nothing, and precision is compared with that of the others.
FREE = {"seed", "num_workers", "precision"}


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=Path, required=True, metavar="DIR", help="with MODEL_seedN of every training")
    parser.add_argument("--models", required=True, help="separated by spaces, as sweep.sh takes them")
    parser.add_argument("--seeds", required=True, help="separated by spaces")
    args = parser.parse_args()
    faults = []
    precisions: dict[str, Path] = {}
    for model in args.models.split():
        name, *changes = re.findall(r"[+@]?[^+@]+", model)
        overrides = [change[1:] for change in changes if change.startswith("+")]
        wanted = load_config(Path("conf") / f"{name}.yaml", overrides).model_dump(exclude=FREE)
        for seed in args.seeds.split():
            kept = args.kept / f"{model}_seed{seed}"
            config = load_config(kept / "config.yaml")
            precisions.setdefault(config.precision, kept)
            found = config.model_dump(exclude=FREE)
            faults += [
                f"{kept}: {key} was {found[key]!r} and is {wanted[key]!r} now; remove it to train again"
                for key in wanted
                if wanted[key] != found[key]
            ]
    if len(precisions) > 1:
        faults.append("precision: " + ", ".join(f"{name} in {kept}" for name, kept in precisions.items()))
    raise_faults(faults, f"{args.kept}: trainings with other settings")


if __name__ == "__main__":
    run_main(main)
