"""Published models that never saw a recipe's corpus, and score it unchanged.

The packages of the extra `references` hold the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import write_table
from distilmos.errors import InputError

Predict = Callable[[np.ndarray], float]  # scores a 16 kHz waveform (N,) from 1 to 5


@dataclass(frozen=True)
class PublishedModel:
    """A published model.

    Attributes:
        title: its name in tables.
        load: returns the model as a function.
    """

    title: str
    load: Callable[[], Predict]


def _distillmos() -> Predict:
    import distillmos
    import torch  # imported here: it is slow, and only this model needs it

    model = distillmos.ConvTransformerSQAModel().eval()

    @torch.inference_mode()
    def predict(samples: np.ndarray) -> float:
        return float(model(torch.from_numpy(samples)[None]))

    return predict


def _dnsmos() -> Predict:
    from speechmos import dnsmos

    def predict(samples: np.ndarray) -> float:
        return float(dnsmos.run(np.clip(samples, -1, 1), SAMPLE_RATE)["p808_mos"])

    return predict


MODELS = {
    # B. Stahl, H. Gamper (Microsoft), ICASSP 2025, distilled from XLS-R; MIT licence.
    "distillmos": PublishedModel("Distill-MOS", _distillmos),
    # C. Reddy et al., ICASSP 2021, by the package speechmos: the mean over windows of nine seconds.
    "dnsmos": PublishedModel("DNSMOS P.808", _dnsmos),
}


@cache
def load_published(name: str) -> Predict:
    """Load a published model, a name in MODELS; once in each process.

    Raises:
        InputError: if a package of the model is not installed.
    """
    try:
        return MODELS[name].load()
    except ImportError as error:
        raise InputError(f"{name}: {error}: pip install 'distilmos[references]'") from None


def predict_published(name: str, data: str | Path, out: str | Path) -> None:
    """Score a data directory with a published model, and write the table of scores `out`.

    Args:
        name: name in MODELS.
        data: data directory, such as dump/raw/test.
        out: table to write.

    Raises:
        InputError: if a package of the model is not installed, or `data` is faulty.
    """
    predict = load_published(name)
    wavs = read_data_dir(data, rated=False).wavs
    write_table(out, {utterance: predict(read_audio(*location)) for utterance, location in wavs.items()})
