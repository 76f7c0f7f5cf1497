"""Write a checkpoint from which the second iteration starts: the first one's weights, with a new output for new labels.

fairseq goes on from a checkpoint whose tensors all have the right shape, or not at all. What it predicts labels with (a
projection for each kind of label, an embedding for each label) is drawn as fairseq itself draws it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from distilmos.data.tables import read_lines
from distilmos.errors import InputError, run_main
from distilmos.files import atomic_path
from distilmos.ssl.pickles import read_pickle

SPECIAL = 4  # entries that fairseq's dictionaries have beside those of the file
KEPT = ("args", "cfg", "model", "criterion", "optimizer_history", "extra_state")  # not the dictionaries of the first


def main() -> None:
    """Read the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="of the first iteration")
    parser.add_argument("--dictionaries", type=Path, nargs="+", required=True, metavar="FILE", help="of the labels")
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="of the new weights")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write")
    args = parser.parse_args()

    state = read_pickle(args.checkpoint)
    try:
        model = state["model"]
        width = model["label_embs_concat"].shape[1]
        embed_dim = model["final_proj.weight"].shape[1]
    except (KeyError, TypeError):
        raise InputError(f"{args.checkpoint}: not a checkpoint of HuBERT's pretraining") from None
    torch.manual_seed(args.seed)
    labels = sum(len(read_lines(path)) + SPECIAL for path in args.dictionaries)
    output = torch.nn.Linear(embed_dim, width * len(args.dictionaries))
    kept = {key: state.get(key) for key in KEPT}
    model |= {
        "label_embs_concat": torch.rand(labels, width),
        "final_proj.weight": output.weight.data,
        "final_proj.bias": output.bias.data,
    }
    with atomic_path(args.out) as temporary:
        torch.save(kept, temporary)


if __name__ == "__main__":
    run_main(main)
