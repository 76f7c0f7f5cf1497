"""Write the checkpoint that the second iteration starts from: the weights of the first, with a new output layer.

fairseq continues only from a checkpoint whose tensors all have the right shape. The output layer (a projection for each
kind of label, an embedding for each label) is initialised as in fairseq.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from distilmos.data.tables import read_lines
from distilmos.errors import InputError, run_main
from distilmos.files import atomic_path
from distilmos.ssl.pickles import read_pickle

SPECIAL = 4  # entries of fairseq's dictionaries in addition to those of the file
KEPT = ("args", "cfg", "model", "criterion", "optimizer_history", "extra_state")  # not the dictionaries of the first


def main() -> None:
    """Read the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="of the first iteration")
    parser.add_argument("--dictionaries", type=Path, nargs="+", required=True, metavar="FILE", help="of the labels")
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="seed of the new weights")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    args = parser.parse_args()

    state = read_pickle(args.checkpoint)
    try:
        model = state["model"]
        width = model["label_embs_concat"].shape[1]
        embed_dim = model["final_proj.weight"].shape[1]
    except (KeyError, TypeError):
        raise InputError(f"{args.checkpoint}: not a checkpoint of HuBERT pretraining") from None
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
