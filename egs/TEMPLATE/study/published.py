"""Score a data directory with a published model that never saw this corpus.

distillmos: Microsoft's Distill-MOS (B. Stahl, H. Gamper, ICASSP 2025), distilled from XLS-R; MIT licence.
dnsmos: DNSMOS P.808 (C. Reddy et al., ICASSP 2021) by the package speechmos.
The packages, which `make -C tools install-references` installs, hold the weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import write_table
from distilmos.errors import InputError, run_main


def main() -> None:
    """Read the command line, score the recordings and write utt2mos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), required=True)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data directory, such as dump/raw/test")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="utt2mos to write")
    args = parser.parse_args()
    try:
        score = MODELS[args.model]()
    except ImportError as error:
        raise InputError(f"{args.model}: {error}: run 'make -C tools install-references' first") from None
    wavs = read_data_dir(args.data).wavs
    write_table(args.out, {utterance: score(read_audio(*location)) for utterance, location in wavs.items()})


def distillmos() -> Callable[[np.ndarray], float]:
    """Return a function that scores a 16 kHz waveform (N,) with Distill-MOS."""
    import distillmos

    model = distillmos.ConvTransformerSQAModel().eval()

    @torch.inference_mode()
    def score(samples: np.ndarray) -> float:
        return float(model(torch.from_numpy(samples)[None]))

    return score


def dnsmos() -> Callable[[np.ndarray], float]:
    """Return a function that scores a 16 kHz waveform (N,) with DNSMOS P.808, as mean over windows of nine seconds."""
    from speechmos import dnsmos

    def score(samples: np.ndarray) -> float:
        return float(dnsmos.run(np.clip(samples, -1, 1), SAMPLE_RATE)["p808_mos"])

    return score


MODELS = {"distillmos": distillmos, "dnsmos": dnsmos}

if __name__ == "__main__":
    run_main(main)
