"""Stage 6: predict the MOS of recordings.

An input is a data directory, a wav.scp, or an audio file of any rate and channel count (channels are averaged); for an
audio file the utterance is its path. With --out writes a Kaldi-style table `utterance MOS`, sorted by utterance, whose
numbers read back exactly; without it prints the lines in the order of the inputs, to 4 decimals.
If any recording cannot be used, all such are named and nothing is written.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_forward_options
from distilmos.data.tables import write_table
from distilmos.inference.predict import find_recordings, predict
from distilmos.model.package import load_model_dir
from distilmos.ssl.forward import choose_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="data directory, wav.scp or audio file")
    parser.add_argument("--model", required=True, metavar="DIR", help="model directory, for example exp/<tag>/model")
    parser.add_argument(
        "--corpus", metavar="NAME", help="corpus on whose scale scores shall be, for a model trained on several"
    )
    parser.add_argument("--out", metavar="FILE", help="utt2mos to write (default: print, rounded)")
    add_forward_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and write."""
    wavs, durations = find_recordings(args.inputs)
    device = choose_device(args.device)
    model = load_model_dir(args.model).to(device)
    scores = predict(model, wavs, durations, device, args.batch_seconds, args.corpus)
    if args.out:
        write_table(args.out, scores)
        print(f"{args.out}: {len(scores)} utterances")
    else:
        for utterance, mos in scores.items():
            print(f"{utterance} {mos:.4f}")
    return 0
