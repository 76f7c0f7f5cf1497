"""Convert a checkpoint that the authors of DistilMOS released to a model directory.

Reads files, or the Hugging Face hub with --hub BaleYang/DistilMOS --backbone wavlm (or w2v2). Scores equal those of the
released network for a single recording; in that network they depend on the batch, here they do not. To fine-tune the
model, set `init_model: DIR` in a training configuration.
"""

from __future__ import annotations

import argparse

from distilmos.errors import InputError
from distilmos.model.official import BACKBONES, fetch_official, load_official
from distilmos.model.package import save_model_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--checkpoint", metavar="FILE", help="model.pth.tar")
    parser.add_argument("--config", metavar="FILE", help="its model_cfg.yaml")
    parser.add_argument("--hub", metavar="OWNER/NAME", help="repository on the hub, instead of the two files")
    parser.add_argument("--backbone", choices=BACKBONES, default="wavlm", help="with --hub (default: wavlm)")
    parser.add_argument("--out", required=True, metavar="DIR", help="model directory to write")


def run(args: argparse.Namespace) -> int:
    """Import the checkpoint and print a summary."""
    if args.hub and not (args.checkpoint or args.config):
        paths, source = fetch_official(args.hub, args.backbone), f"{args.hub}, {args.backbone}"
    elif args.checkpoint and args.config and not args.hub:
        paths, source = (args.checkpoint, args.config), str(args.checkpoint)
    else:
        raise InputError("use either --checkpoint and --config, or --hub")
    model = load_official(*paths)
    save_model_dir(args.out, model, {"imported from": source})
    encoder = model.encoder_config
    print(f"{args.out}: DistilMOS on an encoder with {encoder.num_layers} layers of width {encoder.embed_dim}")
    return 0
